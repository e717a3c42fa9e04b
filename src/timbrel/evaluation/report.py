"""Reports: JSON that says what was measured, on which bundle, by which command; equal runs, equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timbrel.files import atomic_write

DIGITS = 4


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` with its floats rounded to four digits, whole or not at all."""
    with atomic_write(path) as handle:
        handle.write((json.dumps(rounded(content), indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def rounded(value: Any) -> Any:
    """Nested plain values with every float rounded; nan and infinities, which JSON has no words for, become
    null.
    """
    if isinstance(value, Mapping):
        return {str(key): rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value


def share(count: int, total: int) -> float:
    """``count`` of ``total``; nan of nothing."""
    return count / total if total else math.nan
