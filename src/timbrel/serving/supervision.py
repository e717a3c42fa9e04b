"""Keeps Triton running: one that died is started again, after a pause that grows as long as it keeps dying.

Meanwhile the workers answer 503 with Retry-After, and /readyz says no.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from timbrel.errors import ConfigurationError, Unavailable
from timbrel.serving.triton_launcher import Triton

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
# One that ran so long since it was last started died of something new.
STEADY_SECONDS = 60.0
# So many starts in a row that came to nothing: what is wrong does not pass by itself.
MOST_FAILED_STARTS = 5
_POLL_SECONDS = 0.1

Say = Callable[[str], None]


class Keeper:
    """Of one Triton that is ready."""

    def __init__(self, triton: Triton, say: Say, check: Callable[[], None]) -> None:
        """``check`` is called whenever time passes; what it raises ends the waiting."""
        self._triton = triton
        self._say = say
        self._check = check
        self._ready_since = time.monotonic()
        self._pause = FIRST_PAUSE_SECONDS

    def tend(self) -> None:
        """Start Triton again if it died; returns when it is ready.

        Raises Unavailable if it cannot be started, and what ``check`` raises.
        """
        if self._triton.child.running:
            return
        if time.monotonic() - self._ready_since >= STEADY_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        ended = self._triton.child.obituary()
        for _ in range(MOST_FAILED_STARTS):
            self._say(f"{ended}; starting it again in {self._pause:g} s")
            self._wait()
            try:
                self._triton.start_again()
                self._triton.wait_ready(self._say, self._check)
            except (ConfigurationError, Unavailable) as error:
                # It may be the HTTP service that is not available any more.
                self._check()
                ended = error.message
                continue
            self._ready_since = time.monotonic()
            self._say("Triton is ready again")
            return
        raise Unavailable(f"Triton could not be started {MOST_FAILED_STARTS} times in a row: {ended}")

    def _wait(self) -> None:
        end = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        while time.monotonic() < end:
            self._check()
            time.sleep(_POLL_SECONDS)
