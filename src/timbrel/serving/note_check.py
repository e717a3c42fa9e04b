"""Has a note the pitch of its key? A share of the notes that the service makes is measured, for the metrics.

Nobody waits for it: notes are handed over when they are done, a thread of the lowest priority measures one after the
other, and where notes come faster than it can, it leaves some out.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import sys
import threading

import numpy as np

from timbrel.audio import Audio
from timbrel.pitch.estimate import estimate
from timbrel.serving import metrics

# Notes may wait for it: at most 10 s each, 1 MB.
WAITING = 8
_LOWEST_PRIORITY = 19
_log = logging.getLogger("timbrel")


class NoteCheck:
    """Of one process. Thread-safe."""

    def __init__(self) -> None:
        self._share = 0.0
        self._notes: queue.Queue[tuple[Audio, int] | None] = queue.Queue(WAITING)

    def start(self, share: float) -> None:
        """Check ``share`` (0-1) of what is offered from now on."""
        self._share = share
        if share > 0:
            threading.Thread(target=self._work, name="timbrel-notes", daemon=True).start()

    def offer(self, note: Audio, key: int) -> None:
        """A note that was made for a MIDI ``key``. Returns at once."""
        if random.random() >= self._share:
            return
        try:
            self._notes.put_nowait((note, key))
        except queue.Full:
            return

    def close(self) -> None:
        """Check no more."""
        self._share = 0.0

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        while (waiting := self._notes.get()) is not None:
            try:
                error = error_cents(*waiting)
            except Exception:  # what goes wrong here is no reason to check no other
                _log.exception("the pitch of a note could not be measured")
                continue
            metrics.note_checked(error)


def error_cents(note: Audio, key: int) -> float | None:
    """How many cents the note lies from its MIDI ``key``, without sign; None where it has no pitch."""
    # At the softest velocity a note is as quiet as what the estimator takes for silence.
    peak = float(np.abs(note.samples).max(initial=0.0))
    found = estimate(note.samples / np.float32(peak or 1.0), note.sample_rate)
    return 100.0 * abs(found.midi - key) if found.voiced else None


shared = NoteCheck()
"""Of this process: HTTP and gRPC share it."""
