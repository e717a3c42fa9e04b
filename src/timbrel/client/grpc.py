"""Calls answered by a service over gRPC (``timbrel.v1``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc

from timbrel.client import grpc_wire
from timbrel.client.calls import Call
from timbrel.client.patience import Patience, Refused, Timeouts
from timbrel.client.service import Service
from timbrel.client.tracing import trace_headers
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

Result = TypeVar("Result")

_MOST_BYTES = 256 << 20


class GrpcTransport:
    """Over one channel, which connects when it is first used, and again when the connection broke. Thread-safe.

    ``read`` bounds each attempt as a whole, as the deadline that the service is told.
    """

    def __init__(self, service: Service) -> None:
        """``service.url`` is grpc://host:port, or grpcs:// for TLS."""
        self._service = service
        self._metadata = tuple(service.headers.items())
        self._channel = _channel(grpc, service)
        self._stub = pb_grpc.TimbrelStub(self._channel)

    def answer(self, call: Call[Result]) -> Result:
        method = grpc_wire.method(call)
        message = method.message(call)
        patience = Patience(self._service.timeouts, self._service.retries)
        while True:
            try:
                response = getattr(self._stub, method.name)(
                    message, timeout=patience.read, metadata=(*self._metadata, *trace_headers().items())
                )
                # A stream's errors come while it is read.
                answered: Result = grpc_wire.result(call, list(response) if method.stream else response)
                return answered
            except grpc.RpcError as ended:
                problem = _problem(self._service.url, patience, ended)
                if not isinstance(problem, Refused):
                    raise problem from None
                time.sleep(patience.before_next(problem))

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """The same for one event loop: that in which the first call is made."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._metadata = tuple(service.headers.items())
        self._channel: Any = None
        self._stub: Any = None

    async def answer(self, call: Call[Result]) -> Result:
        method = grpc_wire.method(call)
        message = method.message(call)
        self._open()
        patience = Patience(self._service.timeouts, self._service.retries)
        while True:
            try:
                asked = getattr(self._stub, method.name)(
                    message, timeout=patience.read, metadata=(*self._metadata, *trace_headers().items())
                )
                response = [part async for part in asked] if method.stream else await asked
                answered: Result = grpc_wire.result(call, response)
                return answered
            except grpc.RpcError as ended:
                problem = _problem(self._service.url, patience, ended)
                if not isinstance(problem, Refused):
                    raise problem from None
                await asyncio.sleep(patience.before_next(problem))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> None:
        # grpc.aio ties a channel to the loop that runs when it is made; a client may be made before any does.
        if self._channel is None:
            self._channel = _channel(grpc.aio, self._service)
            self._stub = pb_grpc.TimbrelStub(self._channel)


def _channel(made_by: Any, service: Service) -> Any:
    """A channel of ``grpc`` or of ``grpc.aio``."""
    parts = urlsplit(service.url)
    options = _options(service.timeouts)
    if parts.scheme != "grpcs":
        return made_by.insecure_channel(parts.netloc, options)
    trusted = service.authorities.encode() if service.authorities else None
    return made_by.secure_channel(parts.netloc, grpc.ssl_channel_credentials(trusted), options)


def _options(timeouts: Timeouts) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", _MOST_BYTES),
        ("grpc.max_send_message_length", -1),
        # How long a connection may take; gRPC's name for it is older than what it does.
        ("grpc.min_reconnect_backoff_ms", max(1, round(1000 * timeouts.connect))),
        # After a restart of the service the first retry shall not find the channel still waiting.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5000),
    )


def _problem(address: str, patience: Patience, ended: Any) -> Exception:
    trailing = tuple(ended.trailing_metadata() or ())
    return grpc_wire.error(address, patience, ended.code(), ended.details() or "", trailing)
