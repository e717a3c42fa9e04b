"""Arguments of the engine, checked: what is out of range is an InputError that says what is wanted."""

from __future__ import annotations

import numpy as np

from timbrel.errors import InputError

MAX_RECORDINGS = 8
MAX_HITS = 100
MAX_DEPTH = 1000
# Patches of the library in one answer.
DEFAULT_PAGE, MAX_PAGE = 100, 1000
DEFAULT_VELOCITY, HIGHEST_VELOCITY = 100, 127
SHORTEST_SECONDS, LONGEST_SECONDS, DEFAULT_SECONDS = 0.2, 10.0, 4.0


def number(name: str, value: object, low: float, high: float, what: str) -> float:
    """``value`` as a float within low..high, or an InputError that says what is wanted."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"{name} is {what} from {low:g} to {high:g}, not {value!r}")
    result = float(value)
    if not low <= result <= high:  # false for NaN, too
        raise InputError(f"{name} is {what} from {low:g} to {high:g}, not {result:g}")
    return result


def whole(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int within low..high, or an InputError."""
    result = number(name, value, low, high, "a whole number")
    if result != int(result):
        raise InputError(f"{name} is a whole number from {low} to {high}, not {result:g}")
    return int(result)
