"""Where the synchronous engine meets the event loop: few threads, a short queue, a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from timbrel.errors import DeadlineExceeded, Unavailable
from timbrel.serving import metrics

Result = TypeVar("Result")


def busy() -> Unavailable:
    """What is told when there is no place."""
    return Unavailable("the service is busy: try again in a few seconds")


class Workshop:
    """Runs functions on ``threads`` threads; at most ``queue`` more may wait.

    A thread cannot be stopped: after its deadline a function runs on, unheard, and keeps its place until it is done.
    So a slow model makes new requests fail fast instead of piling them up. The metrics show it under its ``name``.
    """

    def __init__(self, name: str, *, threads: int, queue: int, deadline_seconds: float) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="timbrel")
        self._places = threading.BoundedSemaphore(threads + queue)
        self._deadline = deadline_seconds
        self._lock = threading.Lock()
        self._busy = self._waiting = 0
        metrics.workshop_opened(name, threads + queue)

    @property
    def full(self) -> bool:
        """Whether ``run`` would find no place now. Asked on the event loop, where places are taken, too."""
        if self._places.acquire(blocking=False):
            self._places.release()
            return False
        return True

    async def run(self, function: Callable[[], Result], *, within: float | None = None) -> Result:
        """The result of ``function()``.

        Raises Unavailable at once if there is no place, DeadlineExceeded after ``deadline_seconds``, or sooner if the
        caller waits only ``within`` seconds.
        """
        # The thread knows which request it works on, for its log lines and spans.
        function = partial(copy_context().run, function)
        deadline = self._deadline if within is None else min(self._deadline, within)
        if not self._places.acquire(blocking=False):
            raise busy()
        try:
            self._count(waiting=1)
            future = self._pool.submit(self._begun, function)
        except BaseException:
            self._count(waiting=-1)
            self._places.release()
            raise
        future.add_done_callback(self._left)
        try:
            # Cancelling takes back what no thread has begun.
            return await asyncio.wait_for(asyncio.wrap_future(future), deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"the answer took longer than {deadline:.3g} s: try again later") from None

    def _begun(self, function: Callable[[], Result]) -> Result:
        self._count(waiting=-1, busy=1)
        try:
            return function()
        finally:
            self._count(busy=-1)

    def _left(self, future: Future[Any]) -> None:
        if future.cancelled():  # before a thread began it
            self._count(waiting=-1)
        self._places.release()

    def _count(self, *, busy: int = 0, waiting: int = 0) -> None:
        with self._lock:
            self._busy += busy
            self._waiting += waiting
            metrics.workshop_has(self._name, busy=self._busy, waiting=self._waiting)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
