"""Calls answered by a service over HTTP, with httpx."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from timbrel.client import wire
from timbrel.client.calls import Call
from timbrel.client.patience import Patience, Refused, judged, retry_after
from timbrel.client.service import Service, untrusted
from timbrel.client.tracing import trace_headers
from timbrel.client.wire import Answer, Question
from timbrel.errors import DeadlineExceeded, ProtocolError, TimbrelError, Unreachable

Result = TypeVar("Result")

# The largest answer, an instrument of 25 notes of 10 s, has 12 MB.
_MOST_BYTES = 256 << 20
_RETRIED = (429, 503)
# Of httpx's own pools: as many calls at once as one client may make.
_CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


class HttpTransport:
    """Over a pool of connections to one service. Thread-safe.

    ``total`` is looked at before each attempt and after each piece of the answer; a piece itself may take ``read``.
    """

    def __init__(self, service: Service) -> None:
        """``service.url`` starts with http:// or https:// and may end in a path."""
        self._service = service
        self._client = httpx.Client(**_settings(service))

    def answer(self, call: Call[Result]) -> Result:
        question = wire.question(call)
        patience = Patience(self._service.timeouts, self._service.retries)
        while True:
            try:
                told: Result = wire.result(call, self._ask(question, patience))
                return told
            except Refused as refused:
                time.sleep(patience.before_next(refused))

    def close(self) -> None:
        self._client.close()

    def _ask(self, question: Question, patience: Patience) -> Answer:
        url = str(self._client.base_url)  # which shows no password
        with (
            _translated(url, patience),
            self._client.stream(**_request(question), timeout=_timeout(patience)) as response,
        ):
            pieces = _Pieces(patience)
            for piece in response.iter_bytes():
                pieces.add(piece)
        return _judged(_answer(response, pieces.data))


class AsyncHttpTransport:
    """The same for one event loop, where ``total`` holds to the letter."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._client = httpx.AsyncClient(**_settings(service))

    async def answer(self, call: Call[Result]) -> Result:
        question = wire.question(call)
        patience = Patience(self._service.timeouts, self._service.retries)
        while True:
            try:
                told: Result = wire.result(call, await self._ask(question, patience))
                return told
            except Refused as refused:
                await asyncio.sleep(patience.before_next(refused))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, question: Question, patience: Patience) -> Answer:
        url = str(self._client.base_url)  # which shows no password
        pieces = _Pieces(patience)
        try:
            async with asyncio.timeout(patience.remaining):
                with _translated(url, patience):
                    request = self._client.stream(**_request(question), timeout=_timeout(patience))
                    async with request as response:
                        async for piece in response.aiter_bytes():
                            pieces.add(piece)
        except TimeoutError:
            raise patience.over() from None
        return _judged(_answer(response, pieces.data))


def _settings(service: Service) -> dict[str, Any]:
    """The arguments for httpx's clients."""
    trusted = ssl.create_default_context(cadata=service.authorities) if service.authorities else True
    return {
        "base_url": service.url,
        "headers": dict(service.headers),
        "limits": _CONNECTIONS,
        "verify": trusted,
    }


class _Pieces:
    """The body as it comes, within the call's time and a bound on its size."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._data = bytearray()

    def add(self, piece: bytes) -> None:
        self._data += piece
        if len(self._data) > _MOST_BYTES:
            raise ProtocolError(
                f"the answer is larger than {_MOST_BYTES >> 20} MiB, which no answer of Timbrel's is: check the address"
            )
        _ = self._patience.remaining

    @property
    def data(self) -> bytes:
        return bytes(self._data)


def _request(question: Question) -> dict[str, Any]:
    """The arguments for httpx."""
    request: dict[str, Any] = {
        "method": question.method,
        "url": question.path.lstrip("/"),
        "headers": trace_headers(),
    }
    if question.query:
        request["params"] = dict(question.query)
    if question.json is not None:
        request["json"] = dict(question.json)
    if question.audio:
        request["data"] = dict(question.fields or {})
        request["files"] = [("audio", ("recording", each)) for each in question.audio]
    return request


def _timeout(patience: Patience) -> httpx.Timeout:
    read = patience.read
    return httpx.Timeout(connect=patience.connect, read=read, write=read, pool=patience.remaining)


def _answer(response: httpx.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status_code, headers=headers, body=body)


def _judged(answer: Answer) -> Answer:
    """The answer, unless it is an error; Refused where it says when to come again."""
    if answer.status < 400:
        return answer
    seconds = retry_after(answer.headers) if answer.status in _RETRIED else None
    raise judged(wire.error(answer), seconds)


@contextmanager
def _translated(url: str, patience: Patience) -> Iterator[None]:
    """httpx's exceptions as ours."""
    try:
        yield
    except httpx.ConnectTimeout:
        raise Refused(_unreachable(url, "no connection in time")) from None
    except httpx.ConnectError as error:
        if (distrust := untrusted(url, _reason(error))) is not None:
            raise distrust from None
        raise Refused(_unreachable(url, _reason(error))) from None
    except httpx.TimeoutException as error:
        _ = patience.remaining  # whose own error names the total
        what = "no free connection" if isinstance(error, httpx.PoolTimeout) else "nothing more came"
        raise DeadlineExceeded(
            f"{what} from {url} in time: ask for less, or allow a longer timeout"
        ) from None
    except httpx.RemoteProtocolError as error:
        if "disconnected" in str(error) or "peer closed" in str(error):
            raise Refused(_broken(url, error)) from None
        raise ProtocolError(
            f"what answers at {url} is no Timbrel ({_reason(error)}): check the address"
        ) from None
    except httpx.DecodingError as error:
        raise ProtocolError(f"the answer of {url} is damaged ({_reason(error)}): ask again") from None
    except httpx.HTTPError as error:
        raise Refused(_broken(url, error)) from None


def _unreachable(url: str, reason: str) -> TimbrelError:
    return Unreachable(
        f"cannot connect to {url} ({reason}): check the address, and that the service runs (timbrel serve)"
    )


def _broken(url: str, error: Exception) -> TimbrelError:
    return Unreachable(
        f"the connection to {url} broke ({_reason(error)}): ask again; the service may restart"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
