"""At the door of the gRPC service: has a request that needs an API key one?

The counterpart of ``timbrel.serving.guard``. It looks before the request's messages are read, so that a stranger makes
no worker hold an upload. Health needs no key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from timbrel.errors import TimbrelError
from timbrel.serving.grpc_exchange import Exchanges, method, received

_OPEN = "/grpc.health.v1.Health/"
# Under which name each is counted, as HTTP's are.
_ENDPOINTS = {
    "Search": "search", "SearchUpload": "search", "SearchBatch": "search",
    "Locate": "locate", "LocateUpload": "locate",
    "Synthesize": "synthesize", "SynthesizeStream": "synthesize", "SynthesizeBatch": "synthesize",
    "ExportInstrument": "instrument", "ListPatches": "patches", "GetPatch": "patch", "GetPatchFile": "patch_file",
    "GetPatchPreview": "patch_preview", "GetServerInfo": "info",
}  # fmt: skip


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Lets in whom ``exchanges`` admits; who is refused hears why, and is counted."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        # Without the slash in front: as OpenTelemetry names it.
        method.set(details.method.lstrip("/"))
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN):
            return handler
        try:
            self._exchanges.admit(received(details.invocation_metadata))
        except TimbrelError as error:
            return self._refusing(details.method, error)
        return handler

    def _refusing(self, method: str, error: TimbrelError) -> Any:
        endpoint = _ENDPOINTS.get(method.rpartition("/")[2], "other")

        async def refuse(messages: AsyncIterator[Any], context: Any) -> None:
            async with self._exchanges.answering(context, endpoint):
                raise error

        # Of the kind that reads a message only when it asks for one.
        return grpc.stream_stream_rpc_method_handler(refuse)
