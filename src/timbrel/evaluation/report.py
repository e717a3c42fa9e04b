"""Reports: JSON that says what was measured, on which bundle, by which command; equal runs, equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timbrel.files import atomic_write

DIGITS = 4
BASELINES = "baselines"


def write_report(path: Path, content: Mapping[str, Any], *, significant: bool = False) -> None:
    """Write ``content``, whole or not at all, its floats rounded to four decimals; or, ``significant``, to four
    significant digits, for figures that may be far below 1.
    """
    with atomic_write(path) as handle:
        text = json.dumps(rounded(content, significant=significant), indent=2, ensure_ascii=False)
        handle.write((text + "\n").encode("utf-8"))


def protocol_part(
    protocol: str, content: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """One protocol's part of a report that several write: ``<protocol>``, and beside it
    ``baselines.<encoder>.<protocol>``, so that a figure of ours and a baseline's bear the same name.

    ``baselines``: by encoder, its figures under the names that ``content`` gives ours.
    """
    return {
        protocol: dict(content),
        BASELINES: {encoder: {protocol: dict(figures)} for encoder, figures in baselines.items()},
    }


def update_report(path: Path, content: Mapping[str, Any]) -> None:
    """Put ``content`` into the report at ``path``; what it holds under other names stays.

    Under ``baselines`` only the protocols that ``content`` holds are replaced, and for every encoder: a baseline that
    was not measured this time does not keep the figure of another time beside this one's.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    merged = known | dict(content)
    if BASELINES in content:
        former, measured = known.get(BASELINES, {}), content[BASELINES]
        parts = {
            encoder: {name: part for name, part in former.get(encoder, {}).items() if name not in content}
            | dict(measured.get(encoder, {}))
            for encoder in [*former, *(name for name in measured if name not in former)]
        }
        merged[BASELINES] = {encoder: part for encoder, part in parts.items() if part}
    write_report(path, merged)


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
