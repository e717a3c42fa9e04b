"""The gRPC client against servers that refuse, are slow, or are no Timbrel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from support import scripted
from support.scripted import Scripted

from timbrel import errors
from timbrel.client import AsyncClient, Client, grpc_wire
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

INFO = pb.ServerInfo(version="1", bundle_id="b" * 64, families=["bass"], map=pb.Map(pitch_low=48))
Step = Callable[[grpc.ServicerContext], Any]


class Servicer(pb_grpc.TimbrelServicer):
    """The n-th request meets the n-th step, all further ones the last."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self.metadata: list[dict[str, Any]] = []

    def GetServerInfo(self, request: pb.GetServerInfoRequest, context: grpc.ServicerContext) -> pb.ServerInfo:
        self.metadata.append(dict(context.invocation_metadata()))
        step = self._steps[min(len(self.metadata), len(self._steps)) - 1]
        return step(context) or INFO

    def ExportInstrument(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.FilePart]:
        yield pb.FilePart(data=b"half", filename="made.zip", total_bytes=8)


@contextmanager
def serving(*steps: Step, **options: int) -> Iterator[tuple[str, Servicer]]:
    """A real server; its address, and what counts the requests."""
    servicer = Servicer(list(steps))
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool, options=[(f"grpc.{name}", value) for name, value in options.items()])
    pb_grpc.add_TimbrelServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}", servicer
    finally:
        server.stop(None).wait()
        pool.shutdown()


def refuse(
    status: grpc.StatusCode, message: str, code: str | None = None, *, retry_after: str | None = None
) -> Step:
    def step(context: grpc.ServicerContext) -> None:
        told = {grpc_wire.CODE: code, "retry-after": retry_after}
        context.set_trailing_metadata(tuple((key, value) for key, value in told.items() if value))
        context.abort(status, message)

    return step


def good(context: grpc.ServicerContext) -> None:
    """The answer is INFO."""


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Calls a method of one of the two clients."""

    def asked(url: str, method: str = "info", arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        if request.param == "sync":
            with Client(url, **options) as client:
                return getattr(client, method)(**arguments or {})

        async def wait() -> Any:
            async with AsyncClient(url, **options) as client:
                return await getattr(client, method)(**arguments or {})

        return asyncio.run(wait())

    return asked


def test_what_was_not_taken_is_asked_again(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_wire, "_AGAIN_SECONDS", 0.0)
    busy = refuse(grpc.StatusCode.UNAVAILABLE, "busy", "unavailable", retry_after="0")
    crowded = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
    often = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "slower", "too_many_requests", retry_after="0")
    with serving(busy, crowded, good) as (url, servicer):
        assert ask(url, api_key="secret").bundle_id == "b" * 64
        assert [each["authorization"] for each in servicer.metadata] == ["Bearer secret"] * 3
    with serving(often, often, good) as (url, servicer):
        assert ask(url).bundle_id == "b" * 64
        assert len(servicer.metadata) == 3
    with serving(busy) as (url, servicer):
        with pytest.raises(errors.Unavailable, match=r"^busy$") as raised:
            ask(url, retries=1)
        assert (type(raised.value), len(servicer.metadata)) == (errors.Unavailable, 2)


@pytest.mark.parametrize(
    ("status", "code", "kind", "told"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input", errors.InputError, "invalid_input"),
        (grpc.StatusCode.NOT_FOUND, "not_found", errors.NotFound, "not_found"),
        (grpc.StatusCode.FAILED_PRECONDITION, "unsuitable_query", errors.UnsuitableQuery, "unsuitable_query"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "audio_too_large", errors.AudioTooLarge, "audio_too_large"),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "deadline_exceeded",
            errors.DeadlineExceeded,
            "deadline_exceeded",
        ),
        (grpc.StatusCode.UNAUTHENTICATED, "unauthorized", errors.Unauthorized, "unauthorized"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "too_many_requests",
            errors.TooManyRequests,
            "too_many_requests",
        ),
        (grpc.StatusCode.INTERNAL, "internal_error", errors.TimbrelError, "internal_error"),
        (grpc.StatusCode.INVALID_ARGUMENT, "teapot", errors.InputError, "teapot"),
        (grpc.StatusCode.UNIMPLEMENTED, None, errors.ProtocolError, "protocol_error"),
        (grpc.StatusCode.UNKNOWN, None, errors.ProtocolError, "protocol_error"),
    ],
)
def test_an_answer_is_an_answer(
    ask: Any, status: grpc.StatusCode, code: str | None, kind: type, told: str
) -> None:
    with serving(refuse(status, "a message — ♫", code), good) as (url, servicer):
        with pytest.raises(errors.TimbrelError) as raised:
            ask(url)
        assert len(servicer.metadata) == 1
    assert (type(raised.value), raised.value.code) == (kind, told)
    assert "a message — ♫" in raised.value.message
    assert (raised.value.message == "a message — ♫") == (code is not None)


def test_how_long_to_wait_is_kept(ask: Any) -> None:
    often = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "slower", "too_many_requests", retry_after="40")
    with serving(often, good) as (url, servicer):
        with pytest.raises(errors.TooManyRequests, match=r"^slower$") as raised:
            ask(url)
        assert (raised.value.retry_after, len(servicer.metadata)) == (40, 1)


def test_never_again_after_a_deadline(ask: Any) -> None:
    over = threading.Event()

    def slow(context: grpc.ServicerContext) -> None:
        over.wait()

    with serving(slow) as (url, servicer):
        try:
            with pytest.raises(errors.DeadlineExceeded, match="timeout") as raised:
                ask(url, timeout=0.4)
        finally:
            over.set()
        assert (raised.value.code, len(servicer.metadata)) == ("deadline_exceeded", 1)


def test_nobody_listens(ask: Any) -> None:
    with serving(good) as (url, _):
        pass
    with pytest.raises(errors.Unreachable, match="timbrel serve"):
        ask(url)


@pytest.mark.parametrize("step", [scripted.hang_up, scripted.garbage, scripted.info()], ids=str)
def test_what_speaks_no_grpc(ask: Any, step: scripted.Step) -> None:
    """What stands there cannot be told from a service that is starting."""
    with Scripted([step]).running() as server, pytest.raises(errors.Unreachable, match="check the address"):
        ask(f"grpc://127.0.0.1:{server.port}", retries=0, timeout=5)


def test_more_than_the_service_takes(ask: Any) -> None:
    with (
        serving(good, max_receive_message_length=1000) as (url, _),
        pytest.raises(errors.AudioTooLarge, match="shorter"),
    ):
        ask(url, "locate", {"audio": bytes(2000)})


def test_half_a_file(ask: Any) -> None:
    with serving(good) as (url, _), pytest.raises(errors.ProtocolError, match="4 of 8 bytes"):
        ask(url, "instrument", {"x": 0, "y": 0})
