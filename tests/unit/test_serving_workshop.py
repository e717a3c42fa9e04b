"""The bounded pool: results, errors, deadlines, and no pile-up behind slow work."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from timbrel.errors import DeadlineExceeded, NotFound, Unavailable
from timbrel.serving.exchange import ExchangeMiddleware
from timbrel.serving.guard import CrowdMiddleware
from timbrel.serving.workshop import Workshop


def test_results_and_errors_come_back() -> None:
    async def go() -> None:
        workshop = Workshop("questions", threads=1, queue=0, deadline_seconds=60)
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
        workshop = Workshop("questions", threads=1, queue=1, deadline_seconds=60)
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


def test_a_full_workshop_is_seen_at_the_door() -> None:
    """Before the body is read: the application behind the door is not asked at all."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("answered")(scope, receive, send)

    async def go() -> None:
        workshop = Workshop("questions", threads=1, queue=0, deadline_seconds=60)
        guarded = CrowdMiddleware(application, workshop_of=lambda path: {"/search": workshop}.get(path))
        door = ExchangeMiddleware(guarded, max_file_bytes=1_000)
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:

            async def ask(method: str, path: str) -> tuple[int, str]:
                answer = await http.request(method, path)
                return answer.status_code, answer.headers.get("retry-after", "")

            assert not workshop.full
            assert await ask("POST", "/search") == (200, "")
            release = threading.Event()
            working = asyncio.create_task(workshop.run(release.wait))
            await asyncio.sleep(0)
            assert workshop.full
            refused = await http.post("/search", content=b"RIFF")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            assert await ask("POST", "/search") == (503, "2")
            assert await ask("GET", "/search") == await ask("POST", "/info") == (200, "")
            release.set()
            assert await working is True
            assert await ask("POST", "/search") == (200, "")
        workshop.close()

    asyncio.run(go())


def test_after_the_deadline_a_thread_keeps_its_place_until_it_is_done() -> None:
    async def go() -> None:
        workshop = Workshop("questions", threads=1, queue=1, deadline_seconds=0.05)
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


def test_what_works_and_what_waits_is_told_and_forgotten() -> None:
    def told() -> tuple[float | None, ...]:
        names = ("busy", "waiting", "places")
        return tuple(
            REGISTRY.get_sample_value(f"timbrel_workshop_{name}", {"workshop": "questions"}) for name in names
        )

    async def go() -> None:
        workshop = Workshop("questions", threads=1, queue=2, deadline_seconds=60)
        assert told() == (0, 0, 3)
        begun, release = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            release.wait()

        def fail() -> None:
            raise NotFound("no such patch")

        first = asyncio.create_task(workshop.run(hold))
        await asyncio.to_thread(begun.wait)
        second = asyncio.create_task(workshop.run(fail))
        third = asyncio.create_task(workshop.run(lambda: "third"))
        await asyncio.sleep(0)
        assert told() == (1, 2, 3)
        with pytest.raises(Unavailable):
            await workshop.run(lambda: "fourth")
        assert told() == (1, 2, 3)
        third.cancel()  # before any thread has begun it
        with pytest.raises(asyncio.CancelledError):
            await third
        assert told() == (1, 1, 3)
        release.set()
        await first
        with pytest.raises(NotFound):
            await second
        assert told() == (0, 0, 3)
        workshop.close()

    asyncio.run(go())
