"""`timbrel serve` from start to end: what it says, what it refuses, and that nothing of it is left behind."""

from __future__ import annotations

import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.recordings import wav_note
from support.serving import Serving, free_ports, nothing_left, still_running
from support.tiny_bundle import tiny_bundle_folder

from timbrel.serving.triton_files import find_wheel

needs_triton = pytest.mark.skipif(
    find_wheel()[0] is None, reason=f"Triton cannot run here: {find_wheel()[1]}"
)


def _search(serving: Serving) -> tuple[int, dict[str, object]]:
    with serving.client() as client:
        answer = client.post("/search", files={"audio": ("clip", wav_note())}, data={"k": "1"})
        return answer.status_code, answer.json()


@needs_triton
def test_ctrl_c_ends_every_child(tmp_path: Path) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path, workers="2").wait_ready()
    try:
        lines = serving.lines()
        assert any(line.startswith("bundle ") for line in lines)
        assert any(f"127.0.0.1:{serving.ports.triton_grpc}" in line for line in lines)
        assert any(line.startswith(f"ready: {serving.url} ") for line in lines)
        family = serving.family()
        names = [process.name() for process in family]
        assert "tritonserver" in names
        assert len(family) >= 1 + 1 + 5 + 1 + 2  # launcher, Triton, its stubs, BentoML, its workers
        # Listening on loopback only, all of them.
        addresses = {
            connection.laddr.ip
            for process in family
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
        assert _search(serving)[0] == 200
        serving.process.send_signal(signal.SIGINT)
        assert serving.wait_end() == 0
    finally:
        serving.stop()
    assert serving.lines()[-2:] == ["stopping …", "stopped"]
    nothing_left(serving, family)


@needs_triton
@pytest.mark.parametrize("moment", ["starting Triton", "starting the HTTP service"])
def test_ctrl_c_while_it_starts(tmp_path: Path, moment: str) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path)
    serving.wait_line(moment)
    family = serving.family()
    assert serving.stop() == 0
    assert serving.lines()[-1] == "stopped"
    nothing_left(serving, family)


@needs_triton
def test_a_killed_launcher_leaves_nothing_running_and_the_next_run_clears_up(tmp_path: Path) -> None:
    first = Serving.start(tiny_bundle_folder(), tmp_path, workers="1").wait_ready()
    family = first.family()
    first.process.kill()
    first.process.wait()
    assert still_running(family) == []
    ports = replace(free_ports(), http=first.ports.http)
    second = Serving.start(tiny_bundle_folder(), tmp_path, ports=ports, engine="inprocess", workers="1")
    try:
        second.wait_ready()
        assert first.shared_memory() == []
        assert len(list(second.state.glob("run-*"))) == 1
        family = second.family()
        second.process.send_signal(signal.SIGTERM)
        assert second.wait_end() == 0
    finally:
        second.stop()
    nothing_left(second, family)


def test_without_triton_the_models_run_in_the_workers(tmp_path: Path) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path, engine="inprocess", workers="1").wait_ready()
    try:
        assert "models run in the workers (TIMBREL_ENGINE=inprocess)" in serving.lines()
        family = serving.family()
        assert not any(process.name() == "tritonserver" for process in family)
        status, body = _search(serving)
        assert status == 200
        assert len(body["hits"]) == 1  # type: ignore[arg-type]
        with serving.client() as client:
            assert 'engine="inprocess"' in client.get("/metrics").text
        # A worker that dies is replaced by BentoML; the service as a whole that dies ends everything.
        supervisor = next(process for process in family if "bentoml" in process.cmdline())
        supervisor.kill()
        assert serving.wait_end() == 2
    finally:
        serving.stop()
    assert serving.lines()[-1].startswith("timbrel: the HTTP service ended by itself (exit status -9)")
    nothing_left(serving, family)


@needs_triton
@pytest.mark.parametrize("name", ["http", "grpc", "triton_grpc"])
def test_a_busy_port_is_one_line_that_names_port_and_variable(tmp_path: Path, name: str) -> None:
    ports = free_ports()
    port = getattr(ports, name)
    variable = "TIMBREL_HTTP_PORT" if name == "http" else f"TIMBREL_{name.upper()}_PORT"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        serving = Serving.start(tiny_bundle_folder(), tmp_path, ports=ports)
        assert serving.wait_end() == 2
    errors = [line for line in serving.lines() if line.startswith("timbrel: ")]
    assert len(errors) == 1
    assert f"port {port} " in errors[0]
    assert variable in errors[0]
    assert "Traceback" not in serving.output.read_text()
    assert not list(serving.state.glob("run-*"))


def test_a_torn_bundle_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle_folder(), bundle)
    model = bundle / "models" / "generator.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    serving = Serving.start(bundle, tmp_path)
    assert serving.wait_end() == 2
    assert len(serving.lines()) == 1
    assert serving.lines()[0].startswith("timbrel: ")
    assert "generator.onnx" in serving.lines()[0]


def test_wrong_settings_are_all_named(tmp_path: Path) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path, workers="none", engine="gpu")
    assert serving.wait_end() == 2
    text = serving.output.read_text()
    assert "TIMBREL_WORKERS: " in text
    assert "TIMBREL_ENGINE: " in text
    assert "Traceback" not in text
