"""The part of a run that lives in Git: the last value of each metric, and the curve of a training."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

from timbrel.files import atomic_write

History = dict[int, dict[str, float]]


def write_summary(path: Path, *, seconds: float, device: str, metrics: dict[str, float]) -> None:
    """``{"seconds": …, "device": …, "metrics": {…}}``; a value that is not finite is written as null."""
    content = {
        "seconds": round(seconds, 1),
        "device": device,
        "metrics": {name: _rounded(value) for name, value in sorted(metrics.items())},
    }
    with atomic_write(path) as handle:
        handle.write((json.dumps(content, indent=1) + "\n").encode())


def write_history(path: Path, history: History) -> None:
    """A row per step, a column per metric; empty where a metric was not reported, or was not finite."""
    names = sorted({name for row in history.values() for name in row})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *names])
    for step in sorted(history):
        row = history[step]
        writer.writerow([step, *(_cell(row.get(name)) for name in names)])
    with atomic_write(path) as handle:
        handle.write(text.getvalue().encode())


def _cell(value: float | None) -> str:
    return f"{value:.6g}" if value is not None and math.isfinite(value) else ""


def _rounded(value: float) -> float | None:
    """Six significant digits: more would only make noise in diffs."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
