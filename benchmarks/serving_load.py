"""The load that ``serving.py`` puts on a service: clients that ask again as soon as they are answered.

It runs in a process of its own, so that its work is not counted as the service's, and does little: bodies are made
before, answers are taken as bytes and looked at by status and length. What it can do is measured on servers that do
nothing (``trivial_http``, ``trivial_grpc``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc

OK = "200"
# How long a client that is refused waits: a second attempt at once would only measure refusals.
REFUSED_SECONDS = 0.05
TIMEOUT_SECONDS = 60.0

Ask = Callable[[bytes], Awaitable[str]]
"""Sends one body; the outcome: HTTP's status, or gRPC's name of it ("200" for OK), or "lost"."""


@dataclass(frozen=True, slots=True)
class Load:
    """``clients`` at the same time, each with a connection of its own, asking for ``seconds`` after ``warm_seconds``.

    ``target``: an URL's beginning, or host:port of gRPC; ``name``: the path, or the method's full name.
    """

    transport: str
    target: str
    name: str
    content_type: str
    clients: int
    seconds: float
    warm_seconds: float = 0.4


@dataclass(slots=True)
class Measured:
    """``latencies`` (seconds) of answers after ``warm_seconds`` that were OK; ``refusals`` of all others.

    ``answered_per_second`` counts only the former, to the last of them: what is asked is waited for. ``cpu_ms`` is the
    load's own, for each answer.
    """

    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    answered_per_second: float = 0.0
    cpu_ms: float = 0.0


def put(load: Load, bodies: Sequence[bytes]) -> Measured:
    """Put the load on; ``bodies`` in turn, each client beginning at another one."""
    return asyncio.run(_put(load, bodies))


async def _put(load: Load, bodies: Sequence[bytes]) -> Measured:
    measured = Measured()
    asking = _asking_http if load.transport == "http" else _asking_grpc
    async with contextlib.AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(asking(load)) for _ in range(load.clients)]
        begin = time.perf_counter() + load.warm_seconds
        end = last = begin + load.seconds

        async def client(number: int) -> None:
            nonlocal last
            for body in itertools.islice(itertools.cycle(bodies), number % len(bodies), None):
                sent = time.perf_counter()
                if sent >= end:
                    return
                outcome = await asks[number](body)
                now = time.perf_counter()
                if now >= begin:
                    last = max(last, now)
                    measured.outcomes[outcome] += 1
                    (measured.latencies if outcome == OK else measured.refusals).append(now - sent)
                if outcome != OK:
                    await asyncio.sleep(REFUSED_SECONDS)

        cpu, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(client(number) for number in range(load.clients)))
        cpu = time.process_time() - cpu
    answered = max(len(measured.latencies), 1)
    measured.answered_per_second = len(measured.latencies) / (last - begin)
    measured.cpu_ms = 1e3 * cpu * (last - begin) / (last - started) / answered
    return measured


@contextlib.asynccontextmanager
async def _asking_http(load: Load) -> Any:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=1)
    headers = {"content-type": load.content_type}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:

        async def ask(body: bytes) -> str:
            try:
                async with session.post(load.target + load.name, data=body) as answer:
                    return str(answer.status) if await answer.read() else "empty"
            except (aiohttp.ClientError, TimeoutError):
                return "lost"

        yield ask


@contextlib.asynccontextmanager
async def _asking_grpc(load: Load) -> Any:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(load.target, options=options) as channel:
        # No serializers: bytes go out and come in as they are.
        method = channel.unary_unary(load.name)

        async def ask(body: bytes) -> str:
            try:
                return OK if await method(body, timeout=TIMEOUT_SECONDS) else "empty"
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)

        await channel.channel_ready()
        yield ask


@contextlib.contextmanager
def trivial_http(answer_bytes: int) -> Iterator[str]:
    """The URL of a server that answers every request with so many bytes, as fast as Python's asyncio can."""
    body = bytes(answer_bytes)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                writer.write(answer)
                await writer.drain()
        writer.close()

    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    server = loop.run_until_complete(asyncio.start_server(serve, sock=listener))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _close(server: asyncio.Server) -> None:
    server.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)


@contextlib.contextmanager
def trivial_grpc(answer_bytes: int) -> Iterator[str]:
    """host:port of a gRPC server that answers every call of every method so."""
    answer = bytes(answer_bytes)

    class Any_(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            async def method(request: bytes, context: Any) -> bytes:
                return answer

            return grpc.unary_unary_rpc_method_handler(method)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((Any_(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
