"""An HTTP server on a real socket that does what it is told, one step per request: mostly wrong."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Step = Callable[[socket.socket], None]

INFO = {
    "version": "1", "bundle_id": "b" * 64, "bundle_revision": "0" * 40, "patches": 1, "renders": 2,
    "families": ["bass"], "banks": ["tiny"], "stage1_dimension": 16, "stage2_dimension": 96,
    "map": {"radius": 1.0, "pitch_low": 48, "pitch_high": 72, "velocity_low": 40, "velocity_high": 127},
    "max_upload_bytes": 1000, "max_seconds": 60.0,
}  # fmt: skip


class Scripted:
    """Listens on loopback; the n-th request meets the n-th step, all further ones the last."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.closing = threading.Event()
        self.requests: list[bytes] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[Scripted]:
        self._thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            with socket.create_connection(("127.0.0.1", self.port)):
                self._thread.join()
            self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self.closing.is_set():
                    return
                head = _request(connection)
                if not head:
                    continue
                self.requests.append(head)
                step = self._steps[min(len(self.requests), len(self._steps)) - 1]
                try:
                    step(connection)
                except OSError:  # the client left, as it should
                    continue


def _request(connection: socket.socket) -> bytes:
    """The head of a request, its body read and dropped."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head


def answer(
    status: int, body: bytes, *headers: str, kind: str = "application/json", length: int | None = None
) -> Step:
    """A whole answer; ``length`` may promise more than there is."""

    def step(connection: socket.socket) -> None:
        lines = [
            f"HTTP/1.1 {status} Whatever",
            f"content-type: {kind}",
            f"content-length: {len(body) if length is None else length}",
            "connection: close",
            *headers,
        ]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return step


def envelope(status: int, code: str, message: str, *headers: str) -> Step:
    return answer(status, json.dumps({"error": {"code": code, "message": message}}).encode(), *headers)


def info() -> Step:
    """A good answer to /info."""
    return answer(200, json.dumps(INFO).encode())


def hang_up(connection: socket.socket) -> None:
    """No answer at all."""


def silence(connection: socket.socket) -> None:
    """No answer, and the connection stays open until the client leaves."""
    connection.recv(1)


def dribble(connection: socket.socket) -> None:
    """A body that comes byte by byte and never ends."""
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
    )
    connection.settimeout(0.02)
    while True:
        connection.sendall(b" ")
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            continue


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
