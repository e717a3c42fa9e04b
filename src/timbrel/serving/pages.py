"""The GET routes beside BentoML's own: the web page, the library's patches, what is served, the documentation, the
metrics.

BentoML mounts ``application`` at the root; a path that is not here falls through to BentoML's routes. Its own start
page calls a tag manager on another host, so ``/`` and ``/docs`` are ours: the same Swagger UI, nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from timbrel.audio import Limits
from timbrel.engine import catalogue
from timbrel.errors import TimbrelError
from timbrel.library import previews
from timbrel.library.bundle import Bundle
from timbrel.serving import metrics, web_page
from timbrel.serving.answers import InfoAnswer, PatchAnswer, PatchesAnswer
from timbrel.serving.exchange import Problem, answered_from, note
from timbrel.serving.openapi import document
from timbrel.serving.requests import check, text_values
from timbrel.serving.schemas import PatchesQuery
from timbrel.serving.shelf import Shelf

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


def application(shelf: Callable[[], Shelf], limits: Limits) -> Starlette:
    """The routes, over the bundle that ``shelf()`` serves at the time of the request; recordings are read within
    ``limits``.
    """

    def answering(page: Callable[[Bundle, Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                with shelf().current() as served:
                    answered_from(served.bundle.id)
                    return page(served.bundle, request)
            except TimbrelError as error:
                note(Problem.of(error))
                return Response(status_code=error.http_status)

        return endpoint

    def exposition(_: Request) -> Response:
        # No coroutine: it reads files, so Starlette gives it a thread.
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def docs(_: Request) -> Response:
        return HTMLResponse(_DOCS)

    return Starlette(
        routes=[
            *web_page.routes(),
            Route("/docs", docs),
            Route("/docs.json", answering(lambda served, _: JSONResponse(document(served)))),
            Route("/metrics", exposition),
            Route("/info", answering(lambda served, _: _json(InfoAnswer.of(catalogue.info(served, limits))))),
            Route("/patches", answering(_patches)),
            Route("/patches/{patch_id}", answering(_patch)),
            Route("/patches/{patch_id}/file", answering(_file)),
            Route("/patches/{patch_id}/preview", answering(_preview)),
        ]
    )


def _patches(bundle: Bundle, request: Request) -> Response:
    query = check(PatchesQuery, text_values(request.query_params.multi_items(), PatchesQuery))
    page = catalogue.page(
        bundle, offset=query.offset, limit=query.limit, families=query.family, banks=query.bank
    )
    return _json(PatchesAnswer.of(page))


def _patch(bundle: Bundle, request: Request) -> Response:
    return _json(PatchAnswer.of(catalogue.patch(bundle, request.path_params["patch_id"])))


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _file(bundle: Bundle, request: Request) -> Response:
    file = bundle.patch_file(request.path_params["patch_id"])
    disposition = f"attachment; filename*=UTF-8''{quote(file.filename)}"
    return Response(
        file.data,
        media_type=file.media_type,
        headers={"content-disposition": disposition, "cache-control": _CACHE},
    )


def _preview(bundle: Bundle, request: Request) -> Response:
    return Response(
        bundle.preview(request.path_params["patch_id"]),
        media_type=previews.MEDIA_TYPE,
        headers={"cache-control": _CACHE},
    )
