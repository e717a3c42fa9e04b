"""The bounded pool: results, errors, deadlines, and no pile-up behind slow work."""

from __future__ import annotations

import asyncio
import threading

import pytest

from timbrel.errors import DeadlineExceeded, NotFound, Unavailable
from timbrel.serving.workshop import Workshop


def test_results_and_errors_come_back() -> None:
    async def go() -> None:
        workshop = Workshop(threads=1, queue=0, deadline_seconds=60)
        assert await workshop.run(lambda: 7) == 7

        def fail() -> None:
            raise NotFound("no such patch")

        with pytest.raises(NotFound, match="no such patch"):
            await workshop.run(fail)
        # Both places are free again.
        assert await workshop.run(lambda: 8) == 8
        workshop.close()

    asyncio.run(go())


def test_what_cannot_wait_is_refused_at_once() -> None:
    async def go() -> None:
        workshop = Workshop(threads=1, queue=1, deadline_seconds=60)
        release = threading.Event()
        first = asyncio.create_task(workshop.run(release.wait))
        second = asyncio.create_task(workshop.run(lambda: "second"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="busy"):
            await workshop.run(lambda: "third")
        release.set()
        assert await first is True
        assert await second == "second"
        assert await workshop.run(lambda: "fourth") == "fourth"
        workshop.close()

    asyncio.run(go())


def test_after_the_deadline_a_thread_keeps_its_place_until_it_is_done() -> None:
    async def go() -> None:
        workshop = Workshop(threads=1, queue=1, deadline_seconds=0.05)
        release = threading.Event()
        ran: list[str] = []
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await workshop.run(release.wait)
        # The thread is still taken, so this one never begins, and its place in the queue is free again.
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await workshop.run(lambda: ran.append("late"))
        release.set()
        while True:
            try:
                assert await workshop.run(lambda: "well") == "well"
                break
            except DeadlineExceeded:  # the thread needs a moment to come back
                continue
        assert ran == []
        workshop.close()

    asyncio.run(go())
