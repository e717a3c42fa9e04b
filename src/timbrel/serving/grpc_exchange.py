"""One gRPC request and its answer: its name, its deadline, its count, and how its error leaves.

The counterpart of ``timbrel.serving.exchange``: the same errors, codes, messages and metrics, as gRPC says them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from timbrel.errors import DeadlineExceeded, TimbrelError
from timbrel.serving import logs, metrics, tracing
from timbrel.serving.exchange import (
    BUNDLE,
    NO_ANSWER,
    REQUEST_ID,
    Exchange,
    Problem,
    answered_from,
    enter,
    request_id,
)

CODE = "timbrel-code"
RETRY_AFTER = "retry-after"
STATUSES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The status of an error by that of HTTP."""

_INSIDE = "something went wrong inside: the service's log tells what"
# The caller's clock began before ours, by as long as the request was on its way.
_CLOCKS_APART = 0.25
# Which method the current call is of: the interceptor knows, the servicer does not.
method: ContextVar[str] = ContextVar("timbrel_grpc_method", default="")
_log = logging.getLogger("timbrel")

Admit = Callable[[Mapping[str, str]], object]
"""Raises a TimbrelError unless whoever sends this metadata may ask; each time counts as one request of the key's."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and how long they wait."""

    context: Any
    request_id: str
    admit: Callable[[], object]
    """Asks whether another request of a batch is allowed. Raises a TimbrelError."""

    def answered_from(self, bundle: str) -> None:
        """Say with the answer which bundle it is of, by its id."""
        answered_from(bundle)
        self.context.set_trailing_metadata(((BUNDLE, bundle),))

    def remaining(self) -> float | None:
        """Seconds until the caller's own deadline; None without one. Raises DeadlineExceeded when it has passed."""
        seconds: float | None = self.context.time_remaining()
        if seconds is not None and seconds <= 0:
            raise DeadlineExceeded("the deadline of the request has passed: allow more time")
        return seconds


class Exchanges:
    """Makes the exchange of each request."""

    def __init__(self, admit: Admit | None = None) -> None:
        self._admit = admit

    def admit(self, metadata: Mapping[str, str]) -> None:
        """Raises a TimbrelError unless whoever sends this metadata may ask."""
        if self._admit is not None:
            self._admit(metadata)

    @asynccontextmanager
    async def answering(self, context: Any, endpoint: str | None) -> AsyncIterator[Caller]:
        """Around the work on one request. It is counted as ``endpoint``; None for a batch, whose parts are counted
        by ``counting``.
        """
        metadata = received(context.invocation_metadata())
        caller = Caller(context, request_id(metadata.get(REQUEST_ID, "")), partial(self.admit, metadata))
        name = method.get()
        attributes = {
            "rpc.system.name": "grpc", "rpc.method": name, "timbrel.endpoint": endpoint or "batch",
            "timbrel.request_id": caller.request_id,
        }  # fmt: skip
        with tracing.server(name, metadata, attributes):
            async with self._answering(context, endpoint, caller):
                yield caller

    @asynccontextmanager
    async def _answering(self, context: Any, endpoint: str | None, caller: Caller) -> AsyncIterator[None]:
        await context.send_initial_metadata(((REQUEST_ID, caller.request_id),))
        try:
            with counting(endpoint, caller):
                yield
        except TimbrelError as error:
            if type(error) is TimbrelError:
                _log.exception("request %s failed", caller.request_id)
            await context.abort(STATUSES[error.http_status], error.message, _trailing(error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            _log.exception("request %s failed", caller.request_id)
            await context.abort(STATUSES[500], _INSIDE, ((CODE, TimbrelError.code),))


def received(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """What a caller sent beside the messages; of what was sent twice the last."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _trailing(error: TimbrelError) -> tuple[tuple[str, str], ...]:
    """The metadata of an error: its code, and when to come again where that helps."""
    seconds = Problem.of(error).seconds
    again = () if seconds is None else ((RETRY_AFTER, str(seconds)),)
    return ((CODE, error.code), *again)


@contextmanager
def counting(endpoint: str | None, caller: Caller) -> Iterator[None]:
    """Count what happens within as one request, and log it. Enter it in the request's own task."""
    exchange = Exchange(endpoint or "batch", caller.request_id)
    enter(exchange)
    logs.bind(request_id=caller.request_id, **tracing.ids())
    began, outcome = time.perf_counter(), metrics.OK
    status: int | None = 200
    try:
        yield
    except TimbrelError as error:
        outcome, status = error.code, error.http_status
        raise
    except (asyncio.CancelledError, GeneratorExit):
        # gRPC cancels what the caller no longer waits for, because it left or because its deadline has passed.
        seconds = caller.context.time_remaining()
        late = seconds is not None and seconds <= _CLOCKS_APART
        outcome = DeadlineExceeded.code if late else NO_ANSWER
        status = DeadlineExceeded.http_status if late else None
        raise
    except BaseException:
        outcome, status = TimbrelError.code, TimbrelError.http_status
        raise
    finally:
        seconds = time.perf_counter() - began
        name = _status_name(status)
        tracing.answered(outcome, status, {"rpc.response.status_code": name}, bundle=exchange.bundle)
        if endpoint is not None:
            metrics.request_answered(endpoint, outcome, seconds)
            logs.answered(
                transport="grpc", endpoint=endpoint, outcome=outcome, status=status, grpc_status=name,
                seconds=seconds, bundle=exchange.bundle,
            )  # fmt: skip


@contextmanager
def counting_part(endpoint: str, caller: Caller) -> Iterator[None]:
    """The same for one of the requests of a batch, with a span of its own."""
    with tracing.part(endpoint, {"timbrel.endpoint": endpoint}), counting(endpoint, caller):
        yield


def _status_name(status: int | None) -> str:
    if status is None:
        return "CANCELLED"
    return "OK" if status == 200 else str(STATUSES[status].name)
