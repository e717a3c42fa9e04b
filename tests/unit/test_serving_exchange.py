"""The middleware: one error envelope whoever refuses, body limits, exact counts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from timbrel.errors import AudioError, DeadlineExceeded, NotFound, TimbrelError, Unavailable, UnsuitableQuery
from timbrel.serving.exchange import ExchangeMiddleware, Problem, endpoint_of, note, noting

LIMIT = 1000


def _answering(page: Callable[[Request], Awaitable[Response]]) -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/search", page, methods=["POST"]), Route("/livez", page)])
    transport = httpx.ASGITransport(ExchangeMiddleware(app, max_file_bytes=LIMIT), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://timbrel")


def _ask(
    page: Callable[[Request], Awaitable[Response]], method: str, path: str, **more: Any
) -> httpx.Response:
    async def go() -> httpx.Response:
        async with _answering(page) as client:
            return await client.request(method, path, **more)

    return asyncio.run(go())


def _count(endpoint: str, outcome: str) -> float:
    labels = {"endpoint": endpoint, "outcome": outcome}
    return REGISTRY.get_sample_value("timbrel_requests_total", labels) or 0.0


async def _fine(request: Request) -> Response:
    await request.body()
    return PlainTextResponse("fine")


def test_a_good_answer_passes_unchanged_and_is_counted_once() -> None:
    before = _count("search", "ok")
    answer = _ask(_fine, "POST", "/search", content=b"x")
    assert (answer.status_code, answer.text) == (200, "fine")
    assert _count("search", "ok") == before + 1


@pytest.mark.parametrize("path", ["/search", "/livez", "/nowhere"])
def test_every_answer_has_the_requests_id_of_its_caller_if_it_is_one(path: str) -> None:
    for given in ("studio-7", "A.b_c:d/e+f=", "x" * 128):
        assert _ask(_fine, "POST", path, headers={"x-request-id": given}).headers["x-request-id"] == given
    made = {
        _ask(_fine, "POST", path, headers={"x-request-id": bad}).headers["x-request-id"]
        for bad in ("", "two words", "x" * 129, '"', "a;b")
    }
    assert len(made) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)


@pytest.mark.parametrize(
    "error",
    [
        AudioError("not audio: send WAV"),
        UnsuitableQuery("unpitched: send one note"),
        NotFound("no such patch"),
        Unavailable("no model"),
        DeadlineExceeded("too slow"),
        TimbrelError("broken"),
    ],
)
def test_a_noted_error_decides_status_code_and_message(error: TimbrelError) -> None:
    async def page(request: Request) -> Response:
        try:
            with noting():
                raise error
        except TimbrelError:
            # As BentoML does: another status, another body.
            return JSONResponse([{"error": "hidden"}], status_code=500)

    before = _count("search", error.code)
    answer = _ask(page, "POST", "/search")
    assert answer.status_code == error.http_status
    assert answer.json() == {"error": {"code": error.code, "message": error.message}}
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert ("retry-after" in answer.headers) == (error.http_status == 503)
    assert _count("search", error.code) == before + 1


def test_the_first_problem_counts() -> None:
    async def page(request: Request) -> Response:
        note(Problem(413, "first", "one"))
        note(Problem(400, "second", "two"))
        return Response(status_code=500)

    answer = _ask(page, "POST", "/search")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "first")


def test_unknown_route_and_wrong_method_get_the_envelope() -> None:
    missing = _ask(_fine, "GET", "/nowhere")
    assert missing.status_code == 404
    assert missing.json()["error"] == {
        "code": "not_found",
        "message": "there is nothing at /nowhere: /docs lists what there is",
    }
    wrong = _ask(_fine, "GET", "/search")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["message"] == "GET does not work on /search: use POST"


def test_a_crash_becomes_a_500_that_hides_its_reason() -> None:
    async def page(request: Request) -> Response:
        raise ValueError("secret")

    answer = _ask(page, "POST", "/search")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


def test_head_gets_no_body() -> None:
    answer = _ask(_fine, "HEAD", "/nowhere")
    assert (answer.status_code, answer.content) == (404, b"")


def test_a_declared_length_is_refused_before_the_body_is_read() -> None:
    read = False

    async def page(request: Request) -> Response:
        nonlocal read
        read = True
        return PlainTextResponse("")

    answer = _ask(page, "POST", "/search", content=b"x" * 70_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "audio_too_large"
    assert not read


def test_a_body_without_length_is_cut_off_at_the_limit() -> None:
    taken = 0

    async def chunks() -> Any:
        for _ in range(1000):
            yield b"x" * 1000

    async def page(request: Request) -> Response:
        nonlocal taken
        try:
            async for chunk in request.stream():
                taken += len(chunk)
        except TimbrelError:
            return Response(status_code=500)
        return PlainTextResponse("")

    answer = _ask(page, "POST", "/search", content=chunks())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "audio_too_large"
    assert taken <= LIMIT + 64 * 1024


def test_a_body_where_none_is_wanted_has_a_limit_too() -> None:
    answer = _ask(_fine, "POST", "/nowhere", content=b"x" * 70_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_health_checks_are_not_counted() -> None:
    before = _count("other", "ok")
    assert _ask(_fine, "GET", "/livez").status_code == 200
    assert _count("other", "ok") == before


def test_paths_are_counted_under_few_names() -> None:
    assert endpoint_of("/search") == "search"
    assert endpoint_of("/instrument") == "instrument"
    assert endpoint_of("/patches/dx7-0123/preview") == "patch_preview"
    assert endpoint_of("/patches/dx7-0123/file") == "patch_file"
    stray = ("/", "/search/", "/search/x", "/patches/x/other", "/patches//file/x", "/wp-login.php", "*")
    assert {endpoint_of(path) for path in stray} == {"other"}


def test_the_envelope_is_json_for_any_message() -> None:
    async def page(request: Request) -> Response:
        note(Problem.of(NotFound('there is no "ü\n"')))
        return Response(status_code=404)

    assert json.loads(_ask(page, "POST", "/search").content)["error"]["message"] == 'there is no "ü\n"'


def test_a_path_with_a_line_break_makes_no_second_line() -> None:
    message = _ask(_fine, "GET", "/a%0Ab%00c").json()["error"]["message"]
    assert message == "there is nothing at /a\ufffdb\ufffdc: /docs lists what there is"
