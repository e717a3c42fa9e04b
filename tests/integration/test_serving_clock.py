"""Somebody sets the machine's clock while it serves: limits, deadlines and pauses are told by a clock that nobody sets.

The real processes, but Triton's own, run with a wall clock that a preloaded library moves (`support/clock.c`).
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
from support.serving import Serving, nothing_left, triton_of, unread, until
from support.tiny_bundle import tiny_bundle_folder

from timbrel.client import Client
from timbrel.serving import keys
from timbrel.serving.triton_files import find_wheel

DAY = 86_400
NOTE = {"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.3}
DEADLINE_SECONDS = 6


class Clock:
    """The wall clock of the processes that were started with it."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (apt-get install gcc)")
        self.library = folder / "clock.so"
        self.file = folder / "offset"
        source = Path(__file__).parents[1] / "support" / "clock.c"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self.library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self.file.write_bytes(struct.pack("=q", 0))

    def move(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def serving(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """With a Triton where one can run, and with API keys."""
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(clock.library))
        patch.setenv("CLOCK_OFFSET", str(clock.file))
        keys.create(tmp_path / "keys.json", "first")
        running = Serving.start(
            tiny_bundle_folder(),
            tmp_path,
            workers="1",
            api_keys="on",
            keys_file=str(tmp_path / "keys.json"),
            deadline_seconds=str(DEADLINE_SECONDS),
        )
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def _key(serving: Serving, per_minute: int = 100_000) -> dict[str, str]:
    """The header with a new key."""
    _, presented = keys.create(serving.state.parent / "keys.json", "test", per_minute=per_minute)
    return {"authorization": f"Bearer {presented}"}


def _note(serving: Serving, key: dict[str, str]) -> httpx.Response:
    with serving.client() as client:
        return client.post("/synthesize", json=NOTE, headers=key)


def _patches(serving: Serving, key: dict[str, str]) -> httpx.Response:
    with serving.client() as client:
        return client.get("/patches?limit=1", headers=key)


def _status(serving: Serving, key: dict[str, str]) -> int:
    return _patches(serving, key).status_code


def _is_open(serving: Serving, key: dict[str, str]) -> bool:
    return _status(serving, key) == 200


def _is_ahead(serving: Serving, seconds: int) -> bool:
    """Whether the service's wall clock, which is told anew each second, is so far from ours."""
    with serving.client() as client:
        told = parsedate_to_datetime(client.get("/livez").headers["date"]).timestamp()
    return abs(told - time.time() - seconds) < DAY / 2


@pytest.mark.skipif(find_wheel()[0] is None, reason=f"Triton cannot run here: {find_wheel()[1]}")
def test_a_clock_that_jumps_changes_no_limit_no_deadline_and_no_answer(
    serving: Serving, clock: Clock
) -> None:
    key = _key(serving)
    sounding = _note(serving, key).content
    triton = triton_of(serving)
    for jump in (DAY, -DAY):
        # A request that a jump finds under way is answered: its deadline has not come.
        clock.move(0)
        triton.suspend()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(_note, serving, key)
            until(lambda: any(unread(serving.ports.triton_grpc)))
            clock.move(jump)
            triton.resume()
            assert (answer.result().status_code, answer.result().content) == (200, sounding)
        until(partial(_is_ahead, serving, jump))

        # One that is not answered ends at its deadline, not a day later.
        triton.suspend()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(_note, serving, key)
            until(lambda: any(unread(serving.ports.triton_grpc)))
            clock.move(0)
            assert answer.result(timeout=10 * DEADLINE_SECONDS).status_code == 504
        triton.resume()
        until(lambda: _note(serving, key).status_code == 200)

        # A key's requests are neither given back nor held back.
        limited = _key(serving, per_minute=1)
        assert _status(serving, limited) == 200
        assert _status(serving, limited) == 429
        clock.move(jump)
        refused = _patches(serving, limited)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        brisk = _key(serving, per_minute=30)
        while _status(serving, brisk) == 200:
            continue
        clock.move(0)
        until(partial(_is_open, serving, brisk), 60)

    # A Triton that dies under a wrong clock is back as soon as under the right one, and so is who asks again.
    clock.move(-DAY)
    triton.kill()
    presented = key["authorization"].removeprefix("Bearer ")
    with Client(serving.url, api_key=presented, retries=10) as client:
        assert len(client.synthesize(**NOTE).samples) > 0  # type: ignore[arg-type]
    serving.wait_line("Triton is ready again")
    assert _note(serving, key).content == sounding
    family = serving.family()
    assert serving.stop() == 0
    nothing_left(serving, family, kept={"logs", "rates"})
