"""One request and its answer, as the middleware sees them: every 4xx and 5xx leaves as one JSON envelope.

    {"error": {"code": "invalid_input", "message": "k: Input should be greater than or equal to 1 (got 0)"}}

BentoML, Starlette and our own routes each have their own idea of an error body; whatever they send, a status of 400
or more is replaced here. Status, code and message come from the problem that was noted on the way (``noting``), else
from the framework's status. Bodies larger than allowed are refused before they are read.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timbrel.errors import AudioTooLarge, InputError, NotFound, TimbrelError, TooManyRequests, Unavailable
from timbrel.serving import logs, metrics, tracing

# Beyond the file itself: boundaries, part headers and the other fields of a form.
FORM_OVERHEAD_BYTES = 64 * 1024
JSON_BYTES = 64 * 1024
# A search by vectors: some thousands of numbers.
VECTOR_BYTES = 1024 * 1024
RETRY_AFTER_SECONDS = 2
BUNDLE = "timbrel-bundle"
"""Header of an answer, metadata of gRPC's: the id of the bundle that it is of, all of it."""
NO_ANSWER = "no_answer"
"""The outcome of a request whose client left before there was an answer."""
REQUEST_ID = "x-request-id"
"""Header and metadata: the caller's name for its request if it is one, else ours; the answer and the logs have it."""
UNCOUNTED = ("/livez", "/readyz", "/healthz", "/metrics")
_WHOLE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_ROUTES = {"patch": "/patches/{patch_id}"} | {
    f"patch_{each}": f"/patches/{{patch_id}}/{each}" for each in ("file", "preview")
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request fails: what the envelope and its status say."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    @classmethod
    def of(cls, error: TimbrelError) -> Problem:
        wait = error.retry_after if isinstance(error, TooManyRequests) else None
        return cls(error.http_status, error.code, error.message, wait)

    @property
    def seconds(self) -> int | None:
        """When to come again; None where that would not help."""
        return (self.retry_after or RETRY_AFTER_SECONDS) if self.status in (429, 503) else None


@dataclass(slots=True)
class Exchange:
    """What is known of the current request."""

    endpoint: str
    request_id: str
    problem: Problem | None = None
    bundle: str | None = None


_current: ContextVar[Exchange | None] = ContextVar("timbrel_exchange", default=None)


def enter(exchange: Exchange) -> Token[Exchange | None]:
    """This is the current request from now on, in the task that says so."""
    return _current.set(exchange)


def request_id(given: str) -> str:
    """The id of a request whose caller gave it this one, or none."""
    return given if _WHOLE_ID.fullmatch(given) else uuid.uuid4().hex


def note(problem: Problem) -> None:
    """Remember why the current request fails, for the middleware. The first reason counts."""
    exchange = _current.get()
    if exchange is not None and exchange.problem is None:
        exchange.problem = problem


def answered_from(bundle: str) -> None:
    """Remember the id of the bundle that the current request is answered from; the answer says so."""
    exchange = _current.get()
    if exchange is not None:
        exchange.bundle = bundle


@contextmanager
def noting() -> Iterator[None]:
    """Note a TimbrelError on its way out."""
    try:
        yield
    except TimbrelError as error:
        note(Problem.of(error))
        raise


def endpoint_of(path: str) -> str:
    """The bounded name under which a path is counted."""
    parts = path[1:].split("/")
    if len(parts) == 1 and parts[0] in ("search", "synthesize", "instrument", "locate", "patches", "info"):
        return parts[0]
    if len(parts) == 2 and parts[0] == "patches":
        return "patch"
    if len(parts) == 3 and parts[0] == "patches" and parts[2] in ("file", "preview"):
        return f"patch_{parts[2]}"
    return "other"


def _span(scope: Scope, endpoint: str) -> tuple[str, dict[str, str]]:
    """Name and attributes of a request's span. A path that leads nowhere is not among them: it may be anything."""
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    attributes = {
        "http.request.method": method,
        "url.scheme": scope.get("scheme", "http"),
        "timbrel.endpoint": endpoint,
    }
    name = "HTTP" if method == "_OTHER" else method
    if endpoint == "other":
        return name, attributes
    route = _ROUTES.get(endpoint, f"/{endpoint}")
    return f"{name} {route}", {**attributes, "http.route": route}


class ExchangeMiddleware:
    """ASGI middleware: body limits, the error envelope, and the count of requests."""

    def __init__(self, app: ASGIApp, *, max_file_bytes: int) -> None:
        self.app = app
        self._max_file_bytes = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = Exchange(endpoint_of(scope["path"]), request_id(headers.get(REQUEST_ID, "")))
        if scope["path"] in UNCOUNTED:
            await self._exchanged(exchange, headers, scope, receive, send)
            return
        name, attributes = _span(scope, exchange.endpoint)
        attributes["timbrel.request_id"] = exchange.request_id
        with tracing.server(name, headers, attributes):
            logs.bind(request_id=exchange.request_id, **tracing.ids())
            await self._exchanged(exchange, headers, scope, receive, send)

    async def _exchanged(
        self, exchange: Exchange, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        token = enter(exchange)
        answer = _Answer(scope, send, exchange)
        limit = self._limit(exchange.endpoint, headers.get("content-type", ""))
        declared = headers.get("content-length", "")
        try:
            if declared.isdigit() and int(declared) > limit:
                note(_too_large(limit))
                await answer.fail(413)
            else:
                await self.app(scope, _limited(receive, limit), answer.send)
        except Exception:
            if not answer.started:
                await answer.fail(500)
            raise
        finally:
            _current.reset(token)
            if not answer.started:
                answer.start(NO_ANSWER, None)

    def _limit(self, endpoint: str, content_type: str) -> int:
        """Largest body of a request, in bytes."""
        if endpoint == "search" and content_type.lower().startswith("application/json"):
            return VECTOR_BYTES
        takes_audio = endpoint in ("search", "locate")
        return self._max_file_bytes + FORM_OVERHEAD_BYTES if takes_audio else JSON_BYTES


class _Answer:
    """Passes good responses through and replaces the others."""

    def __init__(self, scope: Scope, send: Send, exchange: Exchange) -> None:
        self._scope = scope
        self._send = send
        self._exchange = exchange
        self._replaced = False
        self._began = time.perf_counter()
        self.started = False

    def start(self, outcome: str, status: int | None) -> None:
        """Count the request. Before the answer leaves: whoever has it finds it counted."""
        self.started = True
        if self._scope["path"] not in UNCOUNTED:
            endpoint, bundle, seconds = (
                self._exchange.endpoint,
                self._exchange.bundle,
                time.perf_counter() - self._began,
            )
            metrics.request_answered(endpoint, outcome, seconds)
            attributes = {} if status is None else {"http.response.status_code": status}
            tracing.answered(outcome, status, attributes, bundle=bundle)
            logs.answered(
                transport="http",
                endpoint=endpoint,
                outcome=outcome,
                status=status,
                seconds=seconds,
                bundle=bundle,
            )

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._replaced = True
                await self.fail(message["status"], Headers(raw=message["headers"]).get("allow"))
                return
            self.start(metrics.OK, message["status"])
            MutableHeaders(scope=message)[REQUEST_ID] = self._exchange.request_id
            if self._exchange.bundle is not None:
                MutableHeaders(scope=message)[BUNDLE] = self._exchange.bundle
        if not self._replaced:
            await self._send(message)

    async def fail(self, status: int, allow: str | None = None) -> None:
        """Send the envelope. A problem noted on the way says more than the status that the framework chose."""
        problem = self._exchange.problem or _from_status(status, self._scope, allow)
        self.start(problem.code, problem.status)
        body = json.dumps({"error": {"code": problem.code, "message": problem.message}}).encode()
        headers = MutableHeaders(
            {
                "content-type": "application/json",
                "content-length": str(len(body)),
                REQUEST_ID: self._exchange.request_id,
            }
        )
        if allow:
            headers["allow"] = allow
        if problem.status == 401:
            # Basic, too: a browser asks its user by itself, and sends the key with all that the page asks for.
            headers["www-authenticate"] = 'Bearer, Basic realm="Timbrel: the API key is the password"'
        if problem.seconds is not None:
            headers["retry-after"] = str(problem.seconds)
        await self._send({"type": "http.response.start", "status": problem.status, "headers": headers.raw})
        content = b"" if self._scope["method"] == "HEAD" else body
        await self._send({"type": "http.response.body", "body": content})


def _from_status(status: int, scope: Scope, allow: str | None) -> Problem:
    """For what the frameworks refuse by themselves."""
    method = scope["method"]
    path = "".join(each if each.isprintable() else "\ufffd" for each in scope["path"][:200])
    if status == 404:
        code, message = NotFound.code, f"there is nothing at {path}: /docs lists what there is"
    elif status == 405:
        code, message = (
            "method_not_allowed",
            f"{method} does not work on {path}: use {allow or 'another method'}",
        )
    elif status == 503:
        code, message = Unavailable.code, f"the service is not ready: try again in {RETRY_AFTER_SECONDS} s"
    elif status < 500:
        code, message = InputError.code, "the request is not understood: /docs describes what is expected"
    else:
        code, message = TimbrelError.code, "something went wrong inside: the service's log tells what"
    return Problem(status, code, message)


def _limited(receive: Receive, limit: int) -> Receive:
    """``receive`` that counts, for bodies that come without their length."""
    taken = 0

    async def counting() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            problem = _too_large(limit)
            note(problem)
            raise InputError(problem.message)
        return message

    return counting


def _too_large(limit: int) -> Problem:
    if limit in (JSON_BYTES, VECTOR_BYTES):
        return Problem(
            413, "body_too_large", f"the request body is larger than {limit // 1024} KiB: send less"
        )
    largest = (limit - FORM_OVERHEAD_BYTES) / 2**20
    return Problem(
        AudioTooLarge.http_status, AudioTooLarge.code,
        f"the upload is larger than {largest:g} MiB: send a shorter or a compressed recording",
    )  # fmt: skip
