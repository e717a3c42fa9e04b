"""The pitch gate: which semitones of a library a query may be answered from."""

from __future__ import annotations

import math
from collections.abc import Iterable

from timbrel.errors import InputError

OCTAVE = 12


def semitone(midi: float) -> int:
    """The semitone nearest to a fractional MIDI pitch; halves go up, so that the rule is the same everywhere."""
    return math.floor(midi + 0.5)


def centre(pitch: float) -> int:
    """The semitone that a gate is around. Raises InputError: the pitch is not finite."""
    if not math.isfinite(pitch):
        raise InputError(f"the pitch is {pitch}; give a finite MIDI number, or none for all pitches")
    return semitone(pitch)


def opened(held: Iterable[int], middle: int, window: int, *, octaves: bool = False) -> tuple[int, ...]:
    """Of the semitones that are ``held``, those within ``window`` of ``middle``, in the order given.

    With ``octaves``, also those within ``window`` of any octave above or below it: for queries whose octave is
    uncertain, and for sounds whose partials make them sound an octave off.

    Raises:
        InputError: the window is negative.
    """
    if window < 0:
        raise InputError(f"the window is {window} semitones; it cannot be negative")
    return tuple(each for each in held if _apart(each - middle, octaves) <= window)


def _apart(interval: int, octaves: bool) -> int:
    """Semitones between two pitches; between their nearest octaves, where octaves are equal."""
    if not octaves:
        return abs(interval)
    within = interval % OCTAVE
    return min(within, OCTAVE - within)
