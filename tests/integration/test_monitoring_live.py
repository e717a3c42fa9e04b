"""The monitoring at work: real Prometheus and Alertmanager beside a real service, faults made, notifications received.

Every window, ``for`` and interval of the project's own rules and routes is divided by 60: an hour is a minute. Scrapes
and evaluations come every half second. Every alert is seen to fire here, but for the one on drift, which is in
test_query_drift.py; all of them, at their own pace, are in the tests of promtool (tests/unit/test_monitoring_files.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from matplotlib.image import imread
from support.monitoring import (
    MONITORING,
    Monitoring,
    Receiver,
    dashboards,
    label_values,
    metric_names,
    need,
    panels,
    queries,
    receiver,
)
from support.recordings import wav_note
from support.serving import Serving, still_running, triton_of, until
from support.tiny_bundle import build_tiny_bundle, tiny_bundle_folder

from timbrel.serving.triton_files import find_wheel

FACTOR = 60
# Triton has them only where it is started with a response cache, which `timbrel serve` does not.
OF_A_CACHE = {"nv_cache_num_hits_per_model", "nv_cache_num_misses_per_model"}
NOTE = {"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 0.3}
INSTRUMENT = {"x": 0.2, "y": -0.4, "seconds": 1}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    need("prometheus", "prometheus-alertmanager")
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    folder = tmp_path_factory.mktemp("watched")
    running = Serving.start(tiny_bundle_folder(), folder, workers="2", queue="20", checked_share="1")
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def webhook() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def monitoring(serving: Serving, webhook: Receiver) -> Iterator[Monitoring]:
    running = Monitoring.start(serving, webhook.url, FACTOR)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def _read_again(monitoring: Monitoring) -> None:
    """Have Prometheus read its configuration and rules anew."""
    started = psutil.Process(monitoring.process.pid).children()
    next(child for child in started if child.name() == "prometheus").send_signal(signal.SIGHUP)


def _search(serving: Serving, **fields: str) -> httpx.Response:
    with serving.client() as client:
        return client.post("/search", files={"audio": ("clip", wav_note())}, data={"k": "10", **fields})


def _note(serving: Serving) -> httpx.Response:
    with serving.client() as client:
        return client.post("/synthesize", json=NOTE)


def _instrument(serving: Serving) -> httpx.Response:
    with serving.client() as client:
        return client.post("/instrument", json=INSTRUMENT)


@contextmanager
def load(*calls: Callable[[Serving], httpx.Response], serving: Serving) -> Iterator[None]:
    """Clients that ask one after the other, each its question, until the block ends."""
    ended = threading.Event()

    def ask(call: Callable[[Serving], httpx.Response]) -> None:
        while not ended.is_set():
            with suppress(httpx.TransportError):
                call(serving)

    with ThreadPoolExecutor(len(calls)) as pool:
        for call in calls:
            pool.submit(ask, call)
        try:
            yield
        finally:
            ended.set()


def test_every_name_is_in_the_scrape_of_a_service_under_load(
    serving: Serving, monitoring: Monitoring
) -> None:
    assert _instrument(serving).status_code == 200
    with serving.client() as client:
        assert client.post("/locate", files={"audio": ("clip", wav_note())}).status_code == 200
    wanted = {name for query in queries() for name in metric_names(query)} - OF_A_CACHE
    assert len(wanted) > 50

    def missing() -> set[str]:
        names = httpx.get(f"{monitoring.prometheus}/api/v1/label/__name__/values", timeout=30).json()["data"]
        return wanted - set(names)

    with load(_search, _note, serving=serving):
        with suppress(AssertionError):  # the next line says which
            until(lambda: not missing(), 60)
        assert missing() == set()
        # A quarter of a minute more, for the rules that look back the longest of the names.
        until(lambda: bool(monitoring.ask("timbrel:notes_off:ratio_rate1h")), 60)
    demanded = {each for query in queries() for each in label_values(query) if each[0] not in OF_A_CACHE}
    unseen = {each for each in demanded if not monitoring.ask(f'{each[0]}{{{each[1]}="{each[2]}"}}')}
    # An absent target is what its alert asks for.
    assert unseen == set()
    for query in queries():
        monitoring.ask(query)  # none is refused
    assert all(series["value"][1] == "1" for series in monitoring.ask("up")), monitoring.ask("up")


def test_the_dashboards_are_drawn_from_it(monitoring: Monitoring, tmp_path: Path) -> None:
    command = [sys.executable, str(MONITORING / "pictures.py"), "--prometheus", monitoring.prometheus]
    done = subprocess.run(
        [*command, "--minutes", "3", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    empty = [line for line in done.stderr.splitlines() if "no data" in line]
    assert empty == ["models.png (no data: Hits of the response cache)"]
    for name, board in dashboards().items():
        picture = imread(tmp_path / f"{name}.png")[..., :3]
        assert picture.shape[1] == 1500
        unit = (picture.shape[0] - 52) / max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
        for panel in panels(board):
            place = panel["gridPos"]
            top, left = 46 + place["y"] * unit, place["x"] * 1500 / 24
            part = picture[
                round(top + 24) : round(top + place["h"] * unit - 8),
                round(left + 8) : round(left + place["w"] * 62 - 8),
            ]
            assert np.ptp(part) > 0.3, f"{name}: nothing is drawn in {panel['title']}"


def test_without_prometheus_the_pictures_are_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(MONITORING / "pictures.py"),
        "--prometheus",
        "http://127.0.0.1:1",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("timbrel: no Prometheus answers at http://127.0.0.1:1")
    assert len(done.stderr.splitlines()) == 1


def test_the_watchdog_is_heard(monitoring: Monitoring, webhook: Receiver) -> None:
    told = webhook.wait("TimbrelWatchdog")
    assert told["receiver"] == "watchdog"
    assert told["annotations"]["runbook_url"] == "monitoring/runbooks/watchdog.md"


def test_searches_that_find_nothing(serving: Serving, monitoring: Monitoring, webhook: Receiver) -> None:
    def nothing(serving: Serving) -> httpx.Response:
        return _search(serving, min_confidence="1")

    assert nothing(serving).json()["hits"] == []
    with load(nothing, nothing, nothing, serving=serving):
        told = webhook.wait("TimbrelEmptyAnswers")
    assert told["receiver"] == "ticket"
    assert "of the searches of an hour had no hit" in told["annotations"]["description"]


def test_a_full_queue_and_the_errors_it_makes(
    serving: Serving, monitoring: Monitoring, webhook: Receiver
) -> None:
    with load(*[_instrument] * 16, serving=serving):
        full = webhook.wait("TimbrelQueueFull")
        failing = webhook.wait("TimbrelErrorBudgetBurnsFast")
        until(lambda: "TimbrelErrorBudgetBurnsSlowly" in monitoring.firing())
    assert (full["receiver"], full["labels"]["workshop"]) == ("page", "instruments")
    assert (failing["receiver"], failing["annotations"]["summary"]) == ("page", "Too many requests fail")
    # Both budgets are of the same errors: only the fast one is told, as long as it burns.
    assert webhook.heard("TimbrelErrorBudgetBurnsSlowly") is None
    webhook.wait("TimbrelQueueFull", "resolved")


def test_a_triton_that_hangs_and_the_slowness_it_leaves(
    serving: Serving, monitoring: Monitoring, webhook: Receiver
) -> None:
    triton = triton_of(serving)
    with ThreadPoolExecutor(40) as pool:

        def hangs(long_enough: Callable[[], object]) -> None:
            triton.suspend()
            try:
                asked = [pool.submit(_search if number % 2 else _note, serving) for number in range(40)]
                long_enough()
            finally:
                triton.resume()
            assert any(each.result().status_code == 200 for each in asked)

        hangs(lambda: webhook.wait("TimbrelTritonDown"))
        told = webhook.wait("TimbrelTritonDown")
        assert told["receiver"] == "page"
        assert told["annotations"]["runbook_url"] == "monitoring/runbooks/triton-down.md"
        webhook.wait("TimbrelTritonDown", "resolved")

        def slow_again() -> bool:
            """As often as it takes to outweigh what was quick before: each time longer than the objective's second."""
            hangs(lambda: time.sleep(1.5))
            return webhook.heard("TimbrelLatencyBudgetBurnsFast") is not None

        until(slow_again, 120)
    until(lambda: "TimbrelLatencyBudgetBurnsSlowly" in monitoring.firing())
    assert webhook.wait("TimbrelLatencyBudgetBurnsFast")["receiver"] == "page"
    assert triton_of(serving).pid == triton.pid


def test_a_generator_that_is_out_of_tune(
    serving: Serving, monitoring: Monitoring, webhook: Receiver, tmp_path: Path
) -> None:
    assert "TimbrelNotesOutOfTune" not in monitoring.firing()
    build_tiny_bundle(tmp_path / "flat", in_tune=False).close()
    serving.used(tmp_path / "flat")
    try:
        with load(_note, _note, serving=serving):
            told = webhook.wait("TimbrelNotesOutOfTune")
    finally:
        serving.used(tiny_bundle_folder())
    assert told["receiver"] == "ticket"
    assert "were more than 50 cents from their key" in told["annotations"]["description"]


def test_two_services_that_do_not_agree_on_the_bundle(
    serving: Serving, monitoring: Monitoring, webhook: Receiver, tmp_path: Path
) -> None:
    build_tiny_bundle(tmp_path / "other", variant=1).close()
    other = Serving.start(tmp_path / "other", tmp_path, workers="1", engine="inprocess")
    targets = monitoring.state / "monitoring" / "targets" / "timbrel.yml"
    alone = targets.read_text()
    try:
        other.wait_ready()
        targets.write_text(f"- targets: ['127.0.0.1:{serving.ports.http}', '127.0.0.1:{other.ports.http}']\n")
        told = webhook.wait("TimbrelTwoBundles")
    finally:
        targets.write_text(alone)
        other.stop()
    assert told["receiver"] == "ticket"
    assert told["annotations"]["description"].startswith("2 bundles have been served")
    webhook.wait("TimbrelTwoBundles", "resolved")


def test_a_machine_that_runs_out_of_memory(monitoring: Monitoring, webhook: Receiver) -> None:
    """The alert's own 92 % are not to be filled on a machine that runs tests: its share is moved to what is in use."""
    [used], [total] = (monitoring.ask(f"nv_cpu_memory_{kind}_bytes") for kind in ("used", "total"))
    share = (float(used["value"][1]) + 2**29) / float(total["value"][1])
    rules = monitoring.state / "monitoring" / "rules" / "alerts.yml"
    right = rules.read_text()
    assert right.count("> 0.92") == 1
    rules.write_text(right.replace("> 0.92", f"> {share}"))
    hog = None
    try:
        _read_again(monitoring)
        hog = subprocess.Popen(
            [sys.executable, "-c", "held = b'x' * 2**30; print('held', flush=True); input()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"held\n"
        told = webhook.wait("TimbrelMemoryShort")
        hog.kill()
        hog.wait()
        webhook.wait("TimbrelMemoryShort", "resolved")
    finally:
        if hog is not None:
            hog.kill()
            hog.communicate()
        rules.write_text(right)
        _read_again(monitoring)
    assert told["receiver"] == "ticket"
    assert "of the memory of" in told["annotations"]["description"]


def test_a_worker_that_is_lost(serving: Serving, monitoring: Monitoring, webhook: Receiver) -> None:
    until(lambda: bool(monitoring.ask("timbrel_workers == 2")))
    supervisor = next(process for process in serving.family() if "bentoml" in process.cmdline())
    supervisor.suspend()  # it would start another at once
    try:
        serving.workers()[0].kill()
        told = webhook.wait("TimbrelWorkersMissing")
    finally:
        supervisor.resume()
    assert told["receiver"] == "ticket"
    until(lambda: len(serving.workers()) == 2)


def test_a_configuration_that_is_not_taken(monitoring: Monitoring, webhook: Receiver) -> None:
    config = monitoring.state / "monitoring" / "prometheus.yml"
    right = config.read_text()
    config.write_text("global: {scrape_interval: never}\n")
    try:
        _read_again(monitoring)
        told = webhook.wait("TimbrelMonitoringBroken")
    finally:
        config.write_text(right)
        _read_again(monitoring)
    assert told["receiver"] == "ticket"
    # A Prometheus that reads its configuration again does not know Alertmanager for some seconds: it is asked itself.
    until(lambda: "TimbrelMonitoringBroken" not in monitoring.firing())


def test_a_service_that_is_gone_silences_what_follows_from_it(
    serving: Serving, monitoring: Monitoring, webhook: Receiver
) -> None:
    assert serving.stop() == 0
    told = webhook.wait("TimbrelServiceDown")
    assert told["receiver"] == "page"
    assert "has not answered a scrape" in told["annotations"]["description"]
    # Triton went with it, and is no alert of its own: nobody says any more that models run there.
    assert "TimbrelTritonDown" not in monitoring.firing()


def test_ctrl_c_ends_both_and_keeps_what_they_know(monitoring: Monitoring) -> None:
    family = psutil.Process(monitoring.process.pid).children(recursive=True)
    assert {process.name() for process in family} == {"prometheus", "prometheus-alertmanager"}
    addresses = {
        connection.laddr.ip
        for process in family
        for connection in process.net_connections("inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }
    assert addresses == {"127.0.0.1"}
    assert monitoring.stop() == 0
    assert still_running(family) == []
    assert (monitoring.state / "monitoring" / "prometheus" / "wal").is_dir()


def test_without_the_packages_it_says_which(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path), "TIMBREL_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, str(MONITORING / "start.py")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "timbrel: prometheus-alertmanager is not here: "
        "apt-get install --no-install-recommends prometheus prometheus-alertmanager\n"
    )
