"""The HTTP client against a real server that misbehaves: what is repeated, what is not, and what the caller is told."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from support import scripted
from support.scripted import INFO, Scripted, Step, answer, envelope

from timbrel import errors
from timbrel.client import AsyncClient, Client, Timeouts, http
from timbrel.engine.results import ServerInfo

AGAIN = "retry-after: 0"


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Asks for /info with one of the two clients."""

    def asked(url: str, **options: Any) -> ServerInfo:
        if request.param == "sync":
            with Client(url, **options) as client:
                return client.info()

        async def wait() -> ServerInfo:
            async with AsyncClient(url, **options) as client:
                return await client.info()

        return asyncio.run(wait())

    return asked


def _error(ask: Any, steps: list[Step], requests: int, **options: Any) -> errors.TimbrelError:
    """The error of a call that meets these steps, after this many requests."""
    with Scripted(steps).running() as server:
        with pytest.raises(errors.TimbrelError) as raised:
            ask(server.url, **options)
        assert len(server.requests) == requests
    assert "\n" not in raised.value.message
    return raised.value


@pytest.mark.parametrize(
    "refusal",
    [
        scripted.hang_up,
        answer(200, json.dumps(INFO).encode()[:20], length=500),
        envelope(503, "unavailable", "busy", AGAIN),
        envelope(429, "too_many_requests", "slower", AGAIN),
        answer(503, b"<html>", AGAIN, kind="text/html"),
    ],
    ids=["hung up", "cut off", "503", "429", "a proxy's 503"],
)
def test_what_was_not_taken_is_asked_again(ask: Any, refusal: Step) -> None:
    with Scripted([refusal, refusal, scripted.info()]).running() as server:
        info = ask(server.url)
        assert len(server.requests) == 3
    assert (info.bundle_id, info.map.pitch_low, info.families) == ("b" * 64, 48, ("bass",))


def test_no_more_often_than_allowed(ask: Any) -> None:
    error = _error(ask, [scripted.hang_up], 2, retries=1)
    assert (type(error), error.code) == (errors.Unreachable, "unreachable")
    error = _error(ask, [envelope(503, "unavailable", "the service is busy", AGAIN)], 1, retries=0)
    assert (type(error), error.message) == (errors.Unavailable, "the service is busy")


@pytest.mark.parametrize(
    ("step", "kind", "code"),
    [
        (envelope(400, "invalid_input", "k: too much"), errors.InputError, "invalid_input"),
        (envelope(422, "unsuitable_query", "silent"), errors.UnsuitableQuery, "unsuitable_query"),
        (envelope(404, "not_found", "no such patch"), errors.NotFound, "not_found"),
        (envelope(413, "audio_too_large", "long"), errors.AudioTooLarge, "audio_too_large"),
        (envelope(500, "internal_error", "inside"), errors.TimbrelError, "internal_error"),
        # Without Retry-After nobody says that it will be better soon.
        (envelope(503, "unavailable", "no model"), errors.Unavailable, "unavailable"),
        (envelope(503, "unavailable", "closed", "retry-after: 3600"), errors.Unavailable, "unavailable"),
        (envelope(503, "invalid_bundle", "torn"), errors.BundleError, "invalid_bundle"),
        (envelope(504, "deadline_exceeded", "slow", AGAIN), errors.DeadlineExceeded, "deadline_exceeded"),
        # Codes of a newer service: the nearest class, its own code.
        (envelope(418, "teapot", "short and stout"), errors.InputError, "teapot"),
        (envelope(413, "body_too_large", "send less"), errors.AudioTooLarge, "body_too_large"),
        # No Timbrel.
        (answer(404, b"<h1>Not Found</h1>", kind="text/html"), errors.ProtocolError, "protocol_error"),
        (answer(502, b"bad gateway", kind="text/plain"), errors.Unavailable, "unavailable"),
        (answer(301, b"", "location: https://example.org/"), errors.ProtocolError, "protocol_error"),
        (answer(200, b"<h1>Hi</h1>", kind="text/html"), errors.ProtocolError, "protocol_error"),
        (answer(200, b"{}"), errors.ProtocolError, "protocol_error"),
        (answer(200, b"[1, 2"), errors.ProtocolError, "protocol_error"),
        (answer(200, b"x", "content-encoding: gzip"), errors.ProtocolError, "protocol_error"),
        (scripted.garbage, errors.ProtocolError, "protocol_error"),
    ],
)
def test_an_answer_is_an_answer(ask: Any, step: Step, kind: type, code: str) -> None:
    """Asked once, told once, as the class of the service's code."""
    error = _error(ask, [step], 1)
    assert (type(error), error.code) == (kind, code)


def test_the_message_is_kept(ask: Any) -> None:
    error = _error(ask, [envelope(418, "teapot", "short and stout — ♫")], 1)
    assert (error.message, error.http_status) == ("short and stout — ♫", 418)


def test_an_error_class_with_a_mind_of_its_own(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wary(errors.TimbrelError):
        code = "wary"

        def __init__(self, message: str, *, why: int) -> None:
            super().__init__(message)

    error = _error(ask, [envelope(400, "wary", "no")], 1)
    assert (type(error), str(error)) == (Wary, "no")


def test_a_wait_that_would_outlast_the_call_is_not_begun(ask: Any) -> None:
    step = envelope(503, "unavailable", "in a while", "retry-after: 20")
    error = _error(ask, [step, scripted.info()], 1, timeout=10)
    assert error.message == "in a while"


@pytest.mark.parametrize("step", [scripted.silence, scripted.dribble], ids=["silence", "dribble"])
@pytest.mark.parametrize("timeout", [0.4, Timeouts(connect=0.4, read=0.3, total=0.4)], ids=str)
def test_never_again_after_a_deadline(ask: Any, step: Step, timeout: Any) -> None:
    error = _error(ask, [step, scripted.info()], 1, timeout=timeout)
    assert (type(error), error.code) == (errors.DeadlineExceeded, "deadline_exceeded")
    assert "timeout" in error.message


def test_nobody_listens(ask: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(errors.Unreachable, match=rf"127\.0\.0\.1:{port}.*timbrel serve"):
        ask(f"http://127.0.0.1:{port}")
    with pytest.raises(errors.Unreachable):
        ask("http://no-such-host.invalid")


def test_an_answer_without_end_is_cut(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MOST_BYTES", 1000)
    assert "larger than" in _error(ask, [answer(200, bytes(2000))], 1).message


def test_a_path_before_the_service_and_a_key(ask: Any) -> None:
    with Scripted([scripted.info()]).running() as server:
        ask(f"{server.url}/timbrel/", api_key="secret")
        head = server.requests[0].decode()
    assert head.startswith("GET /timbrel/info HTTP/1.1")
    assert "authorization: Bearer secret" in head.replace("Authorization", "authorization")


@pytest.mark.parametrize(
    "address",
    ["", "localhost:3000", "ftp://host", "http://", "http://host:0", "http://host:99999", "http://h?x=1",
     "grpc://host", "grpc://host:1/path", "http://[::1", 5],
)  # fmt: skip
def test_no_address(address: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="name a service"):
        Client(address)
    with pytest.raises(errors.ConfigurationError, match="name a service"):
        AsyncClient(address)


def test_arguments_of_a_client() -> None:
    with pytest.raises(errors.ConfigurationError, match="name a service"):
        Client()
    with pytest.raises(errors.ConfigurationError, match="not both"):
        Client("http://localhost:3000", bundle="bundle")
    with pytest.raises(errors.ConfigurationError, match="API key"):
        Client("http://localhost:3000", api_key="a\nb")
    with pytest.raises(errors.InputError, match="retries"):
        Client("http://localhost:3000", retries=-1)
    with pytest.raises(errors.InputError, match="timeout"):
        Client("http://localhost:3000", timeout=0)
    with pytest.raises(errors.InputError, match="total"):
        Timeouts(total=float("nan"))
    with pytest.raises(errors.BundleError):
        Client(bundle="/nowhere")


def test_a_cancelled_call_is_not_made_again() -> None:
    async def leave() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.info()

    with Scripted([scripted.silence]).running() as server:
        asyncio.run(leave())
        assert len(server.requests) == 1
