"""The gRPC server over an engine that can be held up: deadlines, cancelled work, health, who may ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY
from support.quiet_bentoml import requests
from support.serving import free_ports
from support.tiny_bundle import tiny_bundle_folder

from timbrel import settings as environment
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import ConfigurationError, TimbrelError
from timbrel.library.bundle import Bundle
from timbrel.pitch.gate import Decision
from timbrel.serving import access, keys
from timbrel.serving.engines import ModelSource
from timbrel.serving.grpc_exchange import STATUSES
from timbrel.serving.grpc_server import GrpcServer
from timbrel.serving.grpc_servicer import TimbrelServicer
from timbrel.serving.shelf import Served, Shelf
from timbrel.serving.workshop import Workshop
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

assert requests  # imported first, it spares the others BentoML's warnings
SECONDS = 60
NOTE = pb.SynthesizeRequest(pitch=60, seconds=0.2)


@dataclass
class Held:
    """Models that wait for ``release``; ``began`` counts the notes whose generator was asked."""

    models: OnnxModels
    release: threading.Event = field(default_factory=threading.Event)
    begin: threading.Event = field(default_factory=threading.Event)
    began: int = 0
    fail: bool = False

    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if model == "generator":
            self.began += 1
            self.begin.set()
            assert self.release.wait(SECONDS)
            if self.fail:
                raise ZeroDivisionError("a secret of the inside")
        return self.models.run(model, inputs)

    def close(self) -> None:
        self.models.close()


@pytest.fixture
def held() -> Iterator[Held]:
    with_bundle = Bundle.open(tiny_bundle_folder())
    models = Held(OnnxModels({name: with_bundle.path(name) for name in with_bundle.manifest.models}))
    with_bundle.close()
    yield models
    models.release.set()
    models.close()


@asynccontextmanager
async def _serving(
    held: Held, *, ready: Callable[[], bool] = lambda: True, **variables: str
) -> AsyncIterator[tuple[grpc.aio.Channel, GrpcServer, Workshop]]:
    settings = environment.load(
        {"TIMBREL_GRPC_PORT": str(free_ports().grpc)}
        | {f"TIMBREL_{name.upper()}": value for name, value in variables.items()}
    )
    bundle = Bundle.open(tiny_bundle_folder())
    workshop = Workshop(
        "questions",
        threads=settings.threads,
        queue=settings.queue,
        deadline_seconds=settings.deadline_seconds,
    )
    servicer = TimbrelServicer(
        settings,
        Shelf(Served(None, bundle, ModelSource("inprocess", held, ready))),
        workshop=workshop,
        foundry=workshop,
        admit=access.admission(settings),
    )
    server = GrpcServer(settings, servicer, ready)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(settings.grpc_target) as channel:
            yield channel, server, workshop
    finally:
        held.release.set()
        await server.stop()
        workshop.close()
        bundle.close()


def _run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


async def _first(call: Any) -> Any:
    """The first message of a stream. Raises AioRpcError."""
    return await anext(aiter(call))


async def _failure(call: Awaitable[Any]) -> tuple[str, str | None, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailing = dict(caught.value.trailing_metadata() or ())
    return caught.value.code().name, trailing.get("timbrel-code"), caught.value.details() or ""


def _counted(outcome: str, endpoint: str = "synthesize") -> float:
    labels = {"endpoint": endpoint, "outcome": outcome}
    return REGISTRY.get_sample_value("timbrel_requests_total", labels) or 0.0


def _is_counted(outcome: str, times: float) -> bool:
    return _counted(outcome) == times


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_callers_deadline_is_kept_and_nothing_piles_up(held: Held) -> None:
    async def go() -> None:
        async with _serving(held, threads="1", queue="3") as (channel, _, _):
            stub = pb_grpc.TimbrelStub(channel)
            late = _counted("deadline_exceeded")
            first = asyncio.ensure_future(stub.Synthesize(NOTE, timeout=SECONDS))
            await asyncio.to_thread(held.begin.wait, SECONDS)
            # They wait behind the first until their callers give up; none of them is ever begun.
            for answered in (late + 3, late + 6):
                hurried = [stub.Synthesize(NOTE, timeout=1) for _ in range(3)]
                assert {(await _failure(call))[0] for call in hurried} == {"DEADLINE_EXCEEDED"}
                await _until(partial(_is_counted, "deadline_exceeded", answered))
            held.release.set()
            assert (await first).wav[:4] == b"RIFF"
            assert held.began == 1
            assert (await stub.Synthesize(NOTE, timeout=SECONDS)).wav == (await first).wav

    _run(go)


def test_our_own_deadline_holds_where_the_caller_has_none(held: Held) -> None:
    async def go() -> None:
        async with _serving(held, threads="1", queue="1", deadline_seconds="0.2") as (channel, _, _):
            stub = pb_grpc.TimbrelStub(channel)
            status, code, message = await _failure(stub.Synthesize(NOTE))
            assert (status, code) == ("DEADLINE_EXCEEDED", "deadline_exceeded")
            assert "took longer than 0.2 s" in message
            # An upload that does not go on.
            upload = stub.SearchUpload()
            await upload.write(pb.SearchUploadRequest(options=pb.SearchOptions(k=1)))
            status, code, message = await _failure(upload)
            assert (status, code) == ("DEADLINE_EXCEEDED", "deadline_exceeded")
            assert "nothing more came" in message

    _run(go)


def test_what_has_no_place_is_refused_at_once_and_a_batch_goes_on(held: Held) -> None:
    async def go() -> None:
        async with _serving(held, threads="1", queue="0") as (channel, _, _):
            stub = pb_grpc.TimbrelStub(channel)
            first = asyncio.ensure_future(stub.Synthesize(NOTE, timeout=SECONDS))
            await asyncio.to_thread(held.begin.wait, SECONDS)
            status, code, message = await _failure(stub.Synthesize(NOTE, timeout=SECONDS))
            assert (status, code) == ("UNAVAILABLE", "unavailable")
            assert "busy" in message
            batch = stub.SynthesizeBatch(timeout=SECONDS)
            await batch.write(NOTE)
            assert (await batch.read()).error.code == "unavailable"
            held.release.set()
            await first
            await batch.write(NOTE)
            assert (await batch.read()).response.wav == (await first).wav
            await batch.done_writing()
            assert await batch.read() is grpc.aio.EOF

    _run(go)


def test_a_caller_who_leaves_is_counted_as_such(held: Held) -> None:
    async def go() -> None:
        async with _serving(held, threads="1", queue="1") as (channel, _, _):
            left = _counted("no_answer")
            call = pb_grpc.TimbrelStub(channel).Synthesize(NOTE)
            await asyncio.to_thread(held.begin.wait, SECONDS)
            call.cancel()
            await _until(partial(_is_counted, "no_answer", left + 1))

    _run(go)


def test_what_breaks_inside_stays_inside(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        held.fail = True
        held.release.set()
        async with _serving(held) as (channel, _, _):
            stub = pb_grpc.TimbrelStub(channel)
            metadata = (("x-request-id", "take-9"),)
            status, code, message = await _failure(stub.Synthesize(NOTE, timeout=SECONDS, metadata=metadata))
            assert (status, code) == ("INTERNAL", "internal_error")
            assert "secret" not in message

    _run(go)
    assert "request take-9 failed" in caplog.text
    assert "a secret of the inside" in caplog.text


def test_health_follows_the_models_and_the_drain(held: Held) -> None:
    async def go() -> None:
        ready = True
        async with _serving(held, ready=lambda: ready) as (channel, server, _):
            stub = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
            request = health_pb2.HealthCheckRequest(service="timbrel.v1.Timbrel")
            watch = stub.Watch(request, timeout=SECONDS)
            unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=SECONDS)
            assert (await watch.read()).status == serving
            assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            unknown.cancel()
            ready = False
            assert (await watch.read()).status == not_serving
            assert (await stub.Check(request, timeout=SECONDS)).status == not_serving
            ready = True
            assert (await watch.read()).status == serving
            assert (await stub.Check(request, timeout=SECONDS)).status == serving
            await server.stop()
            assert (await watch.read()).status == not_serving
            assert await watch.read() is grpc.aio.EOF
            assert (await _failure(stub.Check(request, timeout=SECONDS)))[0] == "UNAVAILABLE"

    _run(go)


def test_a_drain_finishes_what_has_begun(held: Held) -> None:
    async def go() -> None:
        async with _serving(held) as (channel, server, _):
            stub = pb_grpc.TimbrelStub(channel)
            begun = asyncio.ensure_future(stub.Synthesize(NOTE, timeout=SECONDS))
            await asyncio.to_thread(held.begin.wait, SECONDS)
            stopping = asyncio.ensure_future(server.stop())
            await asyncio.sleep(0)
            held.release.set()
            assert (await begun).wav[:4] == b"RIFF"
            await stopping

    _run(go)


def test_a_key_is_asked_for_where_one_is_needed_and_its_limit_holds(held: Held, tmp_path: Path) -> None:
    chosen = {"keys_file": str(tmp_path / "keys.json"), "state": str(tmp_path), "api_keys": "on"}
    _, secret = keys.create(tmp_path / "keys.json", "test", per_minute=2)

    async def go() -> None:
        async with _serving(held, **chosen) as (channel, _, _):
            stub = pb_grpc.TimbrelStub(channel)
            request = pb.GetServerInfoRequest()
            for sent in ((), (("authorization", "Bearer timbrel_" + "0" * 12 + "_" + "x" * 43),)):
                status, code, message = await _failure(
                    stub.GetServerInfo(request, timeout=SECONDS, metadata=sent)
                )
                assert (status, code) == ("UNAUTHENTICATED", "unauthorized")
                assert "API key" in message
            known = (("authorization", f"Bearer {secret}"),)
            for _ in range(2):
                answer = await stub.GetServerInfo(request, timeout=SECONDS, metadata=known)
                assert answer.patches == 14
            refused = stub.GetServerInfo(request, timeout=SECONDS, metadata=known)
            status, code, _ = await _failure(refused)
            assert (status, code) == ("RESOURCE_EXHAUSTED", "too_many_requests")
            assert dict(await refused.trailing_metadata())["retry-after"] == "30"
            # Who only asks whether it serves needs none.
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    _run(go)


def _bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


def test_each_request_of_a_batch_counts(held: Held, tmp_path: Path) -> None:
    """Three a minute: the stream itself, and two notes."""
    chosen = {"keys_file": str(tmp_path / "keys.json"), "state": str(tmp_path), "api_keys": "on"}
    _, secret = keys.create(tmp_path / "keys.json", "test", per_minute=3)
    held.release.set()

    async def go() -> None:
        async with _serving(held, **chosen) as (channel, _, _):
            batch = pb_grpc.TimbrelStub(channel).SynthesizeBatch(
                iter([NOTE] * 4), timeout=SECONDS, metadata=_bearer(secret)
            )
            answers = [answer async for answer in batch]
            assert [each.error.code for each in answers] == ["", "", *["too_many_requests"] * 2]
            assert 1 <= answers[2].error.retry_after_seconds <= 20
            assert held.began == 2

    _run(go)


def test_a_stranger_is_refused_before_anything_is_read(held: Held, tmp_path: Path) -> None:
    chosen = {"keys_file": str(tmp_path / "keys.json"), "state": str(tmp_path), "api_keys": "on"}
    _, secret = keys.create(tmp_path / "keys.json", "test")
    too_large = pb.LocateRequest(audio=bytes(1 << 20))

    async def go() -> None:
        async with _serving(held, max_upload_mib="0.5", **chosen) as (channel, _, _):
            locate = pb_grpc.TimbrelStub(channel).Locate
            before = _counted("unauthorized", "locate")
            told = await _failure(locate(too_large, timeout=SECONDS))
            assert told[:2] == ("UNAUTHENTICATED", "unauthorized")
            assert _counted("unauthorized", "locate") == before + 1
            told = await _failure(locate(too_large, timeout=SECONDS, metadata=_bearer(secret)))
            assert told[:2] == ("RESOURCE_EXHAUSTED", None)
            # What the service looks like is nobody's business either.
            reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            told = await _failure(_first(reflect(iter([asked]), timeout=SECONDS)))
            assert told[:2] == ("UNAUTHENTICATED", "unauthorized")
            answer = await _first(reflect(iter([asked]), timeout=SECONDS, metadata=_bearer(secret)))
            assert len(answer.list_services_response.service) == 3

    _run(go)


def test_what_a_proxy_passes_on_needs_a_key(held: Held, tmp_path: Path) -> None:
    chosen = {"keys_file": str(tmp_path / "keys.json"), "state": str(tmp_path)}
    _, secret = keys.create(tmp_path / "keys.json", "test")

    async def go() -> None:
        async with _serving(held, **chosen) as (channel, _, _):
            ask = pb_grpc.TimbrelStub(channel).GetServerInfo
            request, passed_on = pb.GetServerInfoRequest(), (("x-forwarded-for", "192.0.2.1"),)
            assert (await ask(request, timeout=SECONDS)).patches == 14
            told = await _failure(ask(request, timeout=SECONDS, metadata=passed_on))
            assert told[:2] == ("UNAUTHENTICATED", "unauthorized")
            known = passed_on + _bearer(secret)
            assert (await ask(request, timeout=SECONDS, metadata=known)).patches == 14
        async with _serving(held, api_keys="off", **chosen) as (channel, _, _):
            ask = pb_grpc.TimbrelStub(channel).GetServerInfo
            assert (await ask(request, timeout=SECONDS, metadata=passed_on)).patches == 14

    _run(go)


def test_watchers_of_health_leave_places_for_others(held: Held) -> None:
    async def go() -> None:
        async with _serving(held) as (channel, _, _):
            watch = health_pb2_grpc.HealthStub(channel).Watch
            request = health_pb2.HealthCheckRequest()
            watching = [watch(request, timeout=SECONDS) for _ in range(16)]
            for each in watching:
                assert (await each.read()).status == health_pb2.HealthCheckResponse.SERVING
            assert (await _failure(_first(watch(request, timeout=SECONDS))))[0] == "RESOURCE_EXHAUSTED"
            watching.pop().cancel()
            while True:  # until the server has heard of it
                again = watch(request, timeout=SECONDS)
                if await again.read() is not grpc.aio.EOF:
                    break
            for each in (*watching, again):
                each.cancel()

    _run(go)


def test_a_port_that_cannot_be_had_is_named(held: Held) -> None:
    async def go() -> None:
        with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:\d+ .*TIMBREL_GRPC_PORT"):
            async with _serving(held, grpc_host="192.0.2.1"):
                pass

    _run(go)


def test_every_error_of_ours_has_a_status() -> None:
    def tree(kind: type[TimbrelError]) -> Iterator[type[TimbrelError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from tree(child)

    assert {kind.http_status for kind in tree(TimbrelError)} <= set(STATUSES)
    assert len({kind.code for kind in tree(TimbrelError)}) == len(list(tree(TimbrelError)))


def test_the_interface_names_every_decision_of_the_gate() -> None:
    comment = (environment.ROOT / "src/timbrel/v1/timbrel.proto").read_text()
    line = next(line for line in comment.splitlines() if "unpitched, silent" in line)
    assert set(line.strip("/. ").replace(" or ", ", ").split(", ")) == {each.value for each in Decision}
