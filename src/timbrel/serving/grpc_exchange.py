"""One gRPC request and its answer: its name, its deadline, its count, and how its error leaves.

The counterpart of ``timbrel.serving.exchange``: the same errors, codes, messages and metrics, as gRPC says them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from timbrel.errors import DeadlineExceeded, TimbrelError
from timbrel.serving import metrics
from timbrel.serving.exchange import BUNDLE, NO_ANSWER, Problem

REQUEST_ID = "x-request-id"
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
_WHOLE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
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
        given = metadata.get(REQUEST_ID, "")
        request_id = given if _WHOLE_ID.fullmatch(given) else uuid.uuid4().hex
        caller = Caller(context, request_id, partial(self.admit, metadata))
        await context.send_initial_metadata(((REQUEST_ID, caller.request_id),))
        try:
            with counting(endpoint, caller):
                yield caller
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
    """Count what happens within as one request."""
    began, outcome = time.perf_counter(), metrics.OK
    try:
        yield
    except TimbrelError as error:
        outcome = error.code
        raise
    except (asyncio.CancelledError, GeneratorExit):
        # gRPC cancels what the caller no longer waits for, because it left or because its deadline has passed.
        seconds = caller.context.time_remaining()
        outcome = DeadlineExceeded.code if seconds is not None and seconds <= _CLOCKS_APART else NO_ANSWER
        raise
    except BaseException:
        outcome = TimbrelError.code
        raise
    finally:
        if endpoint is not None:
            metrics.request_answered(endpoint, outcome, time.perf_counter() - began)
