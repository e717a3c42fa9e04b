"""The web page at ``/``: the files that ``web/`` was built into, read once, with the headers that keep it to itself.

Files below ``/assets/`` carry a hash of their content in their name and may be kept for ever; the page that names
them, and the licences of the libraries in it, are asked for anew each time. Nothing of it comes from, or goes to,
another host.
"""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from timbrel.errors import NotFound
from timbrel.serving.exchange import Problem, note

FOLDER = Path(__file__).parent / "page"
# Styles and scripts are files; blob: is what a visitor recorded or is about to save.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "permissions-policy": "microphone=(self), midi=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> _File:
        data = path.read_bytes()
        media_type = mimetypes.guess_type(path.name)[0] or "text/plain"
        if media_type == "application/javascript":  # what some systems' tables still say
            media_type = "text/javascript"
        return cls(data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')

    def answer(self, request: Request, cache: str) -> Response:
        headers = _HEADERS | {"cache-control": cache, "etag": self.etag}
        known = [
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        ]
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.data, media_type=self.media_type, headers=headers)


def routes(folder: Path = FOLDER) -> list[Route]:
    """``/``, ``/licences.txt`` and ``/assets/{name}`` over the files of ``folder``; another name is a 404."""
    start, notices = _File.read(folder / "index.html"), _File.read(folder / "licences.txt")
    assets = {path.name: _File.read(path) for path in sorted((folder / "assets").iterdir())}

    async def page(request: Request) -> Response:
        return start.answer(request, "no-cache")

    async def licences(request: Request) -> Response:
        return notices.answer(request, "no-cache")

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in assets:
            note(Problem.of(NotFound(f"there is no asset {name[:200]!r}: load the page at / again")))
            return Response(status_code=404)
        return assets[name].answer(request, _FOR_EVER)

    return [Route("/", page), Route("/licences.txt", licences), Route("/assets/{name}", asset)]
