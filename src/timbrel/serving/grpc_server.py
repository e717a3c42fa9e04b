"""The gRPC server of one worker: ``timbrel.v1``, health and reflection, on the event loop that HTTP is on.

Every worker opens the same port (SO_REUSEPORT), and the kernel gives each connection to one of them; a worker that dies
takes its socket with it. On SIGTERM or SIGINT watchers of health hear NOT_SERVING, no more requests are taken, and what
has begun is finished.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from timbrel.errors import ConfigurationError
from timbrel.serving.grpc_guard import GuardInterceptor
from timbrel.serving.grpc_servicer import TimbrelServicer
from timbrel.settings import Settings, variable
from timbrel.v1 import timbrel_pb2, timbrel_pb2_grpc

SERVICE: str = timbrel_pb2.DESCRIPTOR.services_by_name["Timbrel"].full_name
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
# Beyond the recordings themselves: the other fields of a request.
_MESSAGE_OVERHEAD = 64 * 1024
# Less than the 30 s that BentoML's supervisor gives a worker.
_DRAIN_SECONDS = 25.0
# How often a watcher's answer is looked at anew.
_WATCH_SECONDS = 1.0
# Streams of health's watchers: they need no API key, and must not take the places of who has one.
_MOST_WATCHERS = 16
# Requests that are read at the same time, for each that is worked on or waits: each may hold a whole upload.
_READ_AHEAD = 8


class GrpcServer:
    """Start it from the event loop's thread; ``stop`` once ends it for good."""

    def __init__(self, settings: Settings, servicer: TimbrelServicer, is_ready: Callable[[], bool]) -> None:
        """``is_ready()`` tells whether the models answer; it is called on another thread."""
        self._target = settings.grpc_target
        self._health = Health(is_ready)
        self._stopping: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", settings.limits.max_bytes + _MESSAGE_OVERHEAD),
                ("grpc.max_send_message_length", -1),
            ],
            interceptors=[GuardInterceptor(servicer.exchanges)],
            maximum_concurrent_rpcs=_READ_AHEAD * (settings.threads + settings.queue),
        )
        timbrel_pb2_grpc.add_TimbrelServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _reflect(self._server)

    async def start(self) -> None:
        """Raises ConfigurationError if the port cannot be used."""
        try:
            self._server.add_insecure_port(self._target)
        except RuntimeError as error:
            raise ConfigurationError(
                f"gRPC cannot listen on {self._target} ({error}): set {variable('grpc_port')} to a free port"
            ) from None
        await self._server.start()
        if threading.current_thread() is threading.main_thread():
            self._heed_signals()

    async def stop(self) -> None:
        """Finish what has begun, for some time; end the rest."""
        self._begin_stop()
        assert self._stopping is not None
        await self._stopping

    def _begin_stop(self) -> None:
        if self._stopping is None:
            self._health.drain()
            self._stopping = asyncio.get_running_loop().create_task(self._server.stop(_DRAIN_SECONDS))

    def _heed_signals(self) -> None:
        """Begin to stop with the signal, not only when HTTP's connections are gone."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            former = signal.getsignal(number)

            def handle(number: int, frame: FrameType | None, former: Any = former) -> None:
                try:
                    loop.call_soon_threadsafe(self._begin_stop)
                except RuntimeError:  # the loop has ended
                    logging.getLogger("timbrel").debug("a second signal")
                if callable(former):
                    former(number, frame)

            signal.signal(number, handle)


def _reflect(server: grpc.aio.Server) -> None:
    """Reflection as v1alpha, which grpcio-reflection has, and as v1, which today's clients ask for first.

    The two are the same messages under two names, and grpcio-reflection has no v1. It is not among the services that
    are listed: there is no file that describes it.
    """
    servicer = reflection.aio.ReflectionServicer((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    v1 = grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((v1,))


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1: SERVING while the models answer and the worker takes requests.

    Asked anew each time, so that no status is old; the servicer of grpcio-health-checking would have to be told.
    """

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._draining = asyncio.Event()
        self._watchers = 0

    def drain(self) -> None:
        """From now on NOT_SERVING; watchers hear it, and are let go."""
        self._draining.set()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        status = await self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the services are {SERVICE} and the empty name")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if self._watchers >= _MOST_WATCHERS:
            status = grpc.StatusCode.RESOURCE_EXHAUSTED
            await context.abort(status, f"{_MOST_WATCHERS} watch already: use Check, or watch once")
        self._watchers += 1
        try:
            async for status in self._changes(request.service):
                yield health_pb2.HealthCheckResponse(status=status)
        finally:
            self._watchers -= 1

    async def _changes(self, service: str) -> AsyncIterator[int]:
        """The status, and again whenever it is another; the last is that of a drain."""
        told = None
        while True:
            draining = self._draining.is_set()
            status = await self._status(service)
            if status != told:
                told = status
                yield status
            if draining:
                return
            try:
                await asyncio.wait_for(self._draining.wait(), _WATCH_SECONDS)
            except TimeoutError:
                continue

    async def _status(self, service: str) -> int:
        answer = health_pb2.HealthCheckResponse
        if service not in ("", SERVICE):
            return int(answer.SERVICE_UNKNOWN)
        if self._draining.is_set() or not await asyncio.to_thread(self._is_ready):
            return int(answer.NOT_SERVING)
        return int(answer.SERVING)
