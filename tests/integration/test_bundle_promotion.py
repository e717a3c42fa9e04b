"""`timbrel bundle promote` with a service that runs: taken up under load, refused whole, and whatever is killed in the
middle, one whole bundle is served, and promoting again completes it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from support import tiny_models
from support.registry import THRESHOLDS, aliases, command, promoter, register, three_versions, variables_of
from support.serving import Serving, nothing_left, still_running, triton_of, until
from support.tiny_bundle import build_tiny_bundle

from timbrel.library import champion
from timbrel.library.bundle import Bundle
from timbrel.serving.triton_files import find_wheel
from timbrel.tracking.registry import Registry, Version

pytestmark = [
    pytest.mark.skipif(find_wheel()[0] is None, reason=f"Triton cannot run here: {find_wheel()[1]}"),
    pytest.mark.timeout(900),
]
NOTE = {"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.2}
CALLERS = 1


@dataclass
class House:
    """A registry, and a service that follows it."""

    root: Path
    versions: tuple[Version, ...]
    serving: Serving

    def bundle(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return command(*arguments, registry=self.root, **self._service)

    def promoted(self, version: Version) -> None:
        done = self.bundle("promote", version.number)
        assert done.returncode == 0, done.stderr
        assert self.champion == version.bundle

    def refused(self, *arguments: object) -> str:
        done = self.bundle(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done
        return done.stderr.splitlines()[-1].removeprefix("timbrel: ")

    def promoting(self, version: Version) -> subprocess.Popen[str]:
        """`timbrel bundle promote`, on its way."""
        program = [str(Path(sys.executable).parent / "timbrel"), "bundle", "promote", str(version.number)]
        environment = variables_of(self.root, **self._service)
        return subprocess.Popen(
            program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def start(self) -> None:
        """The service anew."""
        folder = self.serving.output.parent
        self.serving = Serving.start(
            None, folder, workers="2", registry=str(self.root), ports=self.serving.ports
        ).wait_ready()

    @property
    def _service(self) -> dict[str, Any]:
        return {"state": self.serving.state, "http_port": self.serving.ports.http}

    @property
    def champion(self) -> str:
        live = champion.read(self.root / "live")
        assert live is not None
        return live.champion

    @property
    def other(self) -> Version:
        """One that is not the champion."""
        return next(version for version in self.versions if version.bundle != self.champion)

    def plan(self) -> dict[str, Any]:
        (path,) = self.serving.state.glob(f"run-{self.serving.process.pid}-*/plan.json")
        plan: dict[str, Any] = json.loads(path.read_text())
        return plan

    def served(self) -> set[str]:
        """What both workers say; each connection goes to either."""
        found = set()
        for _ in range(12):
            try:
                with self.serving.client() as client:
                    found.add(client.get("/info").headers.get("timbrel-bundle", "none"))
            except httpx.TransportError:
                found.add("none")
        return found

    def worker(self) -> psutil.Process:
        """One that has said that it serves."""
        for note in self.serving.state.glob(f"run-{self.serving.process.pid}-*/workers/[0-9]*.json"):
            if json.loads(note.read_text())["served"] is not None:
                return psutil.Process(int(note.stem))
        raise AssertionError("no worker serves")

    def is_whole(self) -> bool:
        """What is live is a whole bundle, the service serves it, and the aliases come to say so."""
        assert Bundle.open(self.root / "live" / self.champion).id == self.champion
        assert self.served() == {self.champion}
        registry = Registry.open(self.root)
        registry.follow(self.root / "live")  # as every `timbrel bundle` command that opens it
        return aliases(registry)["champion"] == self.champion

    def verify(self) -> None:
        verified = self.bundle("verify")
        assert verified.returncode == 0, verified.stderr
        assert (
            f"bundle {self.champion[:12]} in {self.root / 'live' / self.champion} is whole" in verified.stdout
        )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Three versions, of which the first is the champion."""
    root = tmp_path_factory.mktemp("registry")
    versions = three_versions(root)
    promoter(Registry.open(root), root).promote("1", THRESHOLDS)
    running = Serving.start(None, tmp_path_factory.mktemp("promoting"), workers="2", registry=str(root))
    house = House(root, versions, running.wait_ready())
    try:
        yield house
    finally:
        house.serving.stop()


@contextmanager
def load(house: House) -> Iterator[list[str]]:
    """Ask all the while; what was neither an answer of one bundle nor a refusal that says when to come again."""
    done, wrong = threading.Event(), list[str]()
    known = {version.bundle for version in house.versions}

    def ask() -> None:
        while not done.is_set():
            try:
                with house.serving.client() as client:
                    answer = client.post("/synthesize", json=NOTE)
            except httpx.TransportError:
                continue  # a worker or the whole service was killed
            if answer.status_code == 503 and "retry-after" in answer.headers:
                continue
            if answer.status_code != 200 or answer.headers["timbrel-bundle"] not in known:
                wrong.append(f"{answer.status_code} {answer.text[:200]}")

    with ThreadPoolExecutor(CALLERS) as pool:
        asking: list[Future[None]] = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            yield wrong
        finally:
            done.set()
        for each in asking:
            each.result()
    assert wrong == []


def test_a_promotion_is_taken_up_under_load_and_rolled_back(house: House) -> None:
    first, second, _ = house.versions
    workers = {process.pid for process in house.serving.family()}
    with load(house):
        house.promoted(second)
        assert house.served() == {second.bundle}
        assert "is the champion" in house.bundle("rollback", "--reason", "a test").stdout
        assert house.served() == {first.bundle}
    assert house.is_whole()
    # Nobody was started again for it.
    assert {process.pid for process in house.serving.family()} & workers >= {house.serving.process.pid}
    live = champion.read(house.root / "live")
    assert live is not None
    assert (live.changes[-1].kind, live.changes[-1].reason) == ("rollback", "a test")


def test_a_change_that_nobody_told_the_service_of_is_taken_up(house: House) -> None:
    """As by a promotion while it was starting, or for another service of the same registry."""
    done = command("promote", house.other.number, registry=house.root)
    assert done.returncode == 0, done.stderr
    until(lambda: house.served() == {house.champion})
    assert house.is_whole()


def test_other_shapes_are_refused_and_nothing_changes(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_models, "D1", 12)
    build_tiny_bundle(tmp_path / "bundle").close()
    shaped = register(Registry.open(house.root), tmp_path / "bundle")
    before, file = house.champion, (house.root / "live" / "live.json").read_bytes()
    said = house.refused("promote", shaped.number)
    assert said.startswith(
        "the bundle's timbre_encoder has other inputs or outputs than the one that is served: stop"
    )
    assert (house.root / "live" / "live.json").read_bytes() == file
    assert house.served() == {before}
    until(lambda: len(list(house.serving.state.glob("run-*/editions/*"))) == 1)
    assert "has other inputs or outputs" in house.refused("use", tmp_path / "bundle")
    assert house.served() == {before}


@pytest.mark.parametrize("victim", ["promote", "worker", "triton", "launcher"])
def test_killed_while_a_promotion_is_taken_up(house: House, victim: str) -> None:
    wanted, former = house.other, house.champion
    with load(house):
        promoting = house.promoting(wanted)
        # Its models are in Triton, and the workers are opening it; the answer may come before the kill does.
        until(lambda: house.plan()["following"] is not None or promoting.poll() is not None)
        if victim == "promote":
            promoting.kill()
        elif victim == "worker":
            house.worker().kill()
        elif victim == "triton":
            triton_of(house.serving).kill()
        else:
            family = house.serving.family()
            house.serving.process.send_signal(signal.SIGKILL)
            assert house.serving.wait_end() == -signal.SIGKILL
        said, _ = promoting.communicate(timeout=300)
        if victim == "launcher":
            assert still_running(family) == []
            # Whoever starts it finds one whole bundle.
            assert Bundle.open(house.root / "live" / house.champion).id in (former, wanted.bundle)
            house.start()
            assert house.served() == {house.champion}
            house.verify()
        elif victim == "promote":
            # The service goes on with what it was asked for.
            until(lambda: house.champion == wanted.bundle)
        elif promoting.returncode != 0:
            assert house.champion == former, said
        until(lambda: _is_ready(house.serving) and house.served() == {house.champion})
    print(f"{victim} killed: {said.splitlines()[-1:]}")
    assert house.is_whole()
    house.promoted(wanted)
    assert house.is_whole()


def test_a_service_with_a_bundle_of_its_own_goes_on_with_it(house: House) -> None:
    family = house.serving.family()
    assert house.serving.stop() == 0
    nothing_left(house.serving, family)
    own = house.versions[0]
    serving = Serving.start(own.folder, house.root.parent / "apart", engine="inprocess", workers="1")
    try:
        serving.wait_ready()
        wanted = house.other
        done = command(
            "promote", wanted.number, registry=house.root, state=serving.state, http_port=serving.ports.http
        )
        assert done.returncode == 0, done.stderr
        assert "goes on with it" in done.stderr
        assert house.champion == wanted.bundle
        with serving.client() as client:
            assert client.get("/info").headers["timbrel-bundle"] == own.bundle
    finally:
        serving.stop()


def _is_ready(serving: Serving) -> bool:
    try:
        with serving.client() as client:
            return bool(client.get("/readyz").status_code == 200)
    except httpx.TransportError:
        return False
