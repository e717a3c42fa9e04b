"""At the door of the HTTP service: does this request need an API key, and has it one?

A request needs one where the settings say so, and else wherever it may come from another machine: it came in at an
address that is not loopback, or a proxy says that it passed it on. Health needs none. /metrics needs one unless asked
for from this machine.

Without keys, a web page from elsewhere could still reach a service on loopback under a name of its own (DNS rebinding):
only addresses, localhost and the names in the settings are answered then.

And is there a place for it? What no thread could take is refused here: reading it first would take the time of those
that have one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from timbrel.errors import TimbrelError
from timbrel.serving.access import Access, passed_on, presented_key
from timbrel.serving.exchange import Problem, note
from timbrel.serving.workshop import Workshop, busy
from timbrel.settings import Demand, Settings, variable

OPEN = ("/livez", "/readyz", "/healthz")


class GuardMiddleware:
    """ASGI middleware, inside the one that writes the error envelope."""

    def __init__(self, app: ASGIApp, *, settings: Settings, access: Access | None = None) -> None:
        self.app = app
        self._settings = settings
        self._access = access or Access.of(settings)
        self._names = {"localhost", *settings.names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                note(problem)
                await Response(status_code=problem.status)(scope, receive, send)
                return
        elif scope["type"] == "websocket":  # there are none; nothing gets past the door by asking for one
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        """Why the request is refused."""
        if scope["path"] in OPEN:
            return None
        headers = Headers(scope=scope)
        if self._needs_key(scope, headers):
            try:
                self._access.check(presented_key(headers.get("authorization", "")))
            except TimbrelError as error:
                return Problem.of(error)
        elif self._settings.api_keys is not Demand.OFF and not self._is_our_name(headers.get("host", "")):
            return Problem(
                421,
                "unknown_host",
                f"the service is not known under this name: add it to {variable('server_names')}, or use API keys",
            )
        return None

    def _needs_key(self, scope: Scope, headers: Headers) -> bool:
        if scope["path"] == "/metrics":
            return passed_on(headers) or not _loopback(scope.get("client"))
        if self._settings.api_keys is Demand.AUTO and (
            passed_on(headers) or not _loopback(scope.get("server"))
        ):
            return True
        return self._settings.needs_key

    def _is_our_name(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and host[-1:] != "]" else host
        name = name.lower().rstrip(".")
        return not name or name in self._names or _is_address(name.strip("[]"))


class CrowdMiddleware:
    """ASGI middleware, inside ``GuardMiddleware``: 503 at once for a request whose workshop is full.

    ``workshop_of``: by path; None for what needs none.
    """

    def __init__(self, app: ASGIApp, *, workshop_of: Callable[[str], Workshop | None]) -> None:
        self.app = app
        self._workshop_of = workshop_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            workshop = self._workshop_of(scope["path"])
            if workshop is not None and workshop.full:
                problem = Problem.of(busy())
                note(problem)
                await Response(status_code=problem.status)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _loopback(address: Any) -> bool:
    """Whether (host, port) of a socket is this machine's own; what is not known is not."""
    try:
        found = ipaddress.ip_address(address[0])
    except (ValueError, TypeError):
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
