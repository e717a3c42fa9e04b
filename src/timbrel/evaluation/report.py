"""Reports: JSON that says what was measured, on which bundle, by which command; equal runs, equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timbrel.files import atomic_write

DIGITS = 4


def write_report(path: Path, content: Mapping[str, Any], *, significant: bool = False) -> None:
    """Write ``content``, whole or not at all, its floats rounded to four decimals; or, ``significant``, to four
    significant digits, for figures that may be far below 1.
    """
    with atomic_write(path) as handle:
        text = json.dumps(rounded(content, significant=significant), indent=2, ensure_ascii=False)
        handle.write((text + "\n").encode("utf-8"))


def update_report(path: Path, content: Mapping[str, Any]) -> None:
    """Put ``content`` into the report at ``path``; what it holds under other names stays."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_report(path, known | dict(content))


def rounded(value: Any, *, significant: bool = False) -> Any:
    """Nested plain values with every float rounded; nan and infinities, which JSON has no words for, become
    null.
    """
    if isinstance(value, Mapping):
        return {str(key): rounded(inner, significant=significant) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, significant=significant) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(f"{value:.{DIGITS}g}") if significant else round(value, DIGITS)
    return value


def share(count: int, total: int) -> float:
    """``count`` of ``total``; nan of nothing."""
    return count / total if total else math.nan
