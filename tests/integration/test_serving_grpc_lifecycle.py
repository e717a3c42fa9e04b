"""gRPC over the life of its workers: one port for all, a drain at the end, and nothing of it left."""

from __future__ import annotations

import io
import signal
import socket
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.serving import Serving, still_running
from support.tiny_bundle import tiny_bundle_folder

from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

SECONDS = 60
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _asked(serving: Serving, times: int) -> set[int]:
    """Ask over ``times`` connections at once; the processes that these went to."""
    channels = [serving.channel() for _ in range(times)]
    try:
        with ThreadPoolExecutor(8) as pool:
            request = pb.SynthesizeRequest(pitch=60, seconds=0.2)
            answers = list(
                pool.map(
                    lambda each: pb_grpc.TimbrelStub(each).Synthesize(
                        request, timeout=SECONDS, wait_for_ready=True
                    ),
                    channels,
                )
            )
        assert len({answer.wav for answer in answers}) == 1
        return {
            process.pid
            for process in serving.workers()
            if any(
                c.status == psutil.CONN_ESTABLISHED and c.laddr.port == serving.ports.grpc
                for c in process.net_connections("tcp")
            )
        }
    finally:
        for channel in channels:
            channel.close()


def test_two_workers_share_a_port_and_a_dead_one_gives_it_up(tmp_path: Path) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path, engine="inprocess", workers="2").wait_ready()
    try:
        said = serving.lines()
        assert f"gRPC (timbrel.v1): {serving.grpc_target}" in said
        _until(lambda: len(serving.workers()) == 2)
        workers = serving.workers()
        # The kernel chooses by a hash of the connection: that one of two gets none of 32 is unheard of.
        assert _asked(serving, 32) == {worker.pid for worker in workers}

        workers[0].kill()
        assert still_running([workers[0]]) == []
        # Every connection finds the other, or the one that takes the dead one's place.
        assert workers[0].pid not in _asked(serving, 16)
        _until(lambda: len(serving.workers()) == 2)
        successors = {worker.pid for worker in serving.workers()}
        assert workers[1].pid in successors
        assert _asked(serving, 32) == successors
        family = serving.family()
        assert serving.stop() == 0
    finally:
        serving.stop()
    assert still_running(family) == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", serving.ports.grpc))
        probe.listen()


@pytest.mark.parametrize("whom", ["launcher", "worker"])
def test_sigterm_finishes_what_has_begun(tmp_path: Path, whom: str) -> None:
    serving = Serving.start(tiny_bundle_folder(), tmp_path, engine="inprocess", workers="1").wait_ready()
    try:
        (worker,) = serving.workers()
        with serving.channel() as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service="timbrel.v1.Timbrel"), timeout=SECONDS
            )
            assert next(watch).status == SERVING
            parts = pb_grpc.TimbrelStub(channel).ExportInstrument(
                pb.ExportInstrumentRequest(x=0.1, y=0.1, seconds=4), timeout=SECONDS
            )
            # It comes when the work has begun.
            assert dict(parts.initial_metadata())["x-request-id"]
            if whom == "launcher":
                serving.process.send_signal(signal.SIGTERM)
            else:
                worker.terminate()
            assert [answer.status for answer in watch] == [NOT_SERVING]
            data = b"".join(part.data for part in parts)
            assert len(zipfile.ZipFile(io.BytesIO(data)).namelist()) == 27
        assert still_running([worker]) == []
        if whom == "worker":
            # BentoML puts another in its place.
            assert worker.pid not in _asked(serving, 4)
            serving.process.send_signal(signal.SIGTERM)
        assert serving.wait_end() == 0
    finally:
        serving.stop()
    assert serving.lines()[-2:] == ["stopping …", "stopped"]
    assert "Traceback" not in serving.log("service")


def test_grpc_can_be_left_closed(tmp_path: Path) -> None:
    serving = Serving.start(
        tiny_bundle_folder(), tmp_path, engine="inprocess", workers="1", grpc="false"
    ).wait_ready()
    try:
        assert not any("gRPC" in line for line in serving.lines())
        assert serving.workers() == []
        with serving.channel() as channel, pytest.raises(grpc.RpcError) as caught:
            pb_grpc.TimbrelStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        assert serving.stop() == 0
