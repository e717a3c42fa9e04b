"""How long a client waits, and when it asks again.

Every call is a pure read, so it may be repeated. It is, where the service did not take it: no connection, a
connection that broke, or 503 and 429 with a Retry-After. It is not after a deadline (the client's or the service's),
since the same question would take as long again; nor after any other answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from timbrel.engine.arguments import number, whole
from timbrel.errors import DeadlineExceeded, TimbrelError, TooManyRequests

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
# A service that names a longer pause is left alone: the caller knows better what to do meanwhile.
_LONGEST_RETRY_AFTER = 30.0
_MOST_RETRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bounds in seconds. ``connect`` and ``read`` are of one attempt, ``read`` (and write) of each piece that goes over
    the wire; ``total`` is of the call with all its attempts and the waits between them.
    """

    connect: float = 5.0
    read: float = 60.0
    total: float = 120.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "total"):
            number(f"the timeout {name}", getattr(self, name), 0.001, 86_400, "a number of seconds")

    @classmethod
    def of(cls, timeout: float | Timeouts) -> Timeouts:
        """``timeout`` itself, or a total with bounds of one attempt that are no longer."""
        if isinstance(timeout, Timeouts):
            return timeout
        total = number("timeout", timeout, 0.001, 86_400, "a number of seconds")
        return cls(connect=min(total, cls().connect), read=total, total=total)


class Refused(Exception):
    """An attempt that was not taken: it may be made again, after ``seconds`` where the service names them."""

    def __init__(self, error: TimbrelError, seconds: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.seconds = seconds


class Patience:
    """What one call has left of its time and of its attempts."""

    def __init__(self, timeouts: Timeouts, retries: int) -> None:
        self._timeouts = timeouts
        self._end = time.monotonic() + timeouts.total
        self._retries = retries
        self._wait = _FIRST_WAIT

    @property
    def left(self) -> float:
        """Seconds that the call has left; 0 or less when its time is over."""
        return self._end - time.monotonic()

    @property
    def remaining(self) -> float:
        """Seconds that the call has left. Raises DeadlineExceeded when there are none."""
        left = self.left
        if left <= 0:
            raise self.over()
        return left

    @property
    def connect(self) -> float:
        return min(self._timeouts.connect, self.remaining)

    @property
    def read(self) -> float:
        return min(self._timeouts.read, self.remaining)

    def over(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no whole answer within {self._timeouts.total:g} s: ask for less, or allow a longer timeout"
        )

    def before_next(self, refused: Refused) -> float:
        """Seconds to wait before the next attempt. Raises the error where there is none."""
        asked = refused.seconds or 0.0
        # Full jitter (clients that were refused together do not come back together), but never before they may.
        wait = asked + random.uniform(0, max(self._wait, asked / 4))
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        if self._retries == 0 or asked > _LONGEST_RETRY_AFTER or wait >= self.left:
            raise refused.error from None
        self._retries -= 1
        return wait


def checked_retries(retries: int) -> int:
    """Raises InputError for no number from 0 to 10."""
    return whole("retries", retries, 0, _MOST_RETRIES)


def judged(error: TimbrelError, seconds: float | None) -> TimbrelError | Refused:
    """What a service's refusal means: it may be asked again if it says after how many ``seconds``."""
    if seconds is None:
        return error
    if isinstance(error, TooManyRequests):
        error.retry_after = int(seconds)
    return Refused(error, seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After (HTTP's header, gRPC's trailing metadata); None without one. A date is not read:
    clocks may differ.
    """
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None
