"""The GET routes beside BentoML's own: a patch's file and preview, the documentation, the metrics.

BentoML mounts ``application`` at the root; a path that is not here falls through to BentoML's routes. Its own start
page calls a tag manager on another host, so ``/`` and ``/docs`` are ours: the same Swagger UI, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from timbrel.errors import TimbrelError
from timbrel.library import previews
from timbrel.library.bundle import Bundle
from timbrel.serving import metrics
from timbrel.serving.exchange import Problem, note
from timbrel.serving.openapi import document

# Bundles are immutable, but the same patch may sound otherwise in the next one.
_CACHE = "public, max-age=300"

_DOCS = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Timbrel: the HTTP API</title>
  <link rel="stylesheet" href="/static_content/swagger-ui.css">
  <link rel="icon" href="data:,">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/static_content/swagger-ui-bundle.js" charset="utf-8"></script>
  <script>
    window.ui = SwaggerUIBundle({ url: "/docs.json", dom_id: "#swagger-ui", deepLinking: true });
  </script>
</body>
</html>
"""


def application(bundle: Callable[[], Bundle]) -> Starlette:
    """The routes, over the bundle that ``bundle()`` gives at the time of the request."""

    def answering(page: Callable[[Bundle, str], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return page(bundle(), request.path_params["patch_id"])
            except TimbrelError as error:
                note(Problem.of(error))
                return Response(status_code=error.http_status)

        return endpoint

    async def openapi(_: Request) -> Response:
        return JSONResponse(document(bundle()))

    def exposition(_: Request) -> Response:
        # No coroutine: it reads files, so Starlette gives it a thread.
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def docs(_: Request) -> Response:
        return HTMLResponse(_DOCS)

    return Starlette(
        routes=[
            Route("/", docs),
            Route("/docs", docs),
            Route("/docs.json", openapi),
            Route("/metrics", exposition),
            Route("/patches/{patch_id}/file", answering(_file)),
            Route("/patches/{patch_id}/preview", answering(_preview)),
        ]
    )


def _file(bundle: Bundle, patch_id: str) -> Response:
    file = bundle.patch_file(patch_id)
    disposition = f"attachment; filename*=UTF-8''{quote(file.filename)}"
    return Response(
        file.data,
        media_type=file.media_type,
        headers={"content-disposition": disposition, "cache-control": _CACHE},
    )


def _preview(bundle: Bundle, patch_id: str) -> Response:
    return Response(
        bundle.preview(patch_id), media_type=previews.MEDIA_TYPE, headers={"cache-control": _CACHE}
    )
