"""Progress of a stage that renders: counts on the run's curve, every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from timbrel.tracking import Record

SECONDS = 3.0


def every_few_seconds(record: Record) -> Callable[[str, int, int], None]:
    """A callback ``(what, done, total)`` that logs ``<what>_done`` at most every three seconds, and at the end."""
    told = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if done == total or now - told >= SECONDS:
            told = now
            record.metrics({f"{what}_done": float(done), f"{what}_total": float(total)}, step=done)

    return report
