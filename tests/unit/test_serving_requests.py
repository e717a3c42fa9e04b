"""Arguments: what is accepted, and a message that says what to do for what is not."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.quiet_bentoml import requests

from timbrel.errors import InputError
from timbrel.serving.requests import InstrumentInput, LocateInput, SearchInput, SynthesizeInput, check
from timbrel.serving.schemas import SearchOptions, SynthesizeRequest

DEFAULTS: dict[str, Any] = {
    "like": None, "k": 10, "offset": 0, "gate": "auto", "pitch": None, "octaves": False, "family": [], "bank": [],
    "min_confidence": 0.0, "fold": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"k": "5", "gate": "off", "pitch": "60.5"}, {"k": 5, "gate": "off", "pitch": 60.5}),
        ({"k": 100, "pitch": 0}, {"k": 100, "pitch": 0.0}),
        ({"k": 100.0, "offset": "3.0"}, {"k": 100, "offset": 3}),
        (
            {"offset": "20", "octaves": "true", "fold": "false"},
            {"offset": 20, "octaves": True, "fold": False},
        ),
        ({"family": "brass", "bank": ["a, b", "c"]}, {"family": ["brass"], "bank": ["a, b", "c"]}),
        ({"like": "dx7-1", "min_confidence": "0.9"}, {"like": "dx7-1", "min_confidence": 0.9}),
    ],
)
def test_search_options(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert check(SearchOptions, values).model_dump() == DEFAULTS | expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": "0"}, "k: input should be greater than or equal to 1 (got 0)"),
        ({"k": "101"}, "k: input should be less than or equal to 100 (got 101)"),
        ({"k": "1.5"}, "k: input should be a valid integer"),
        ({"k": ""}, "k: input should be a valid integer (got '')"),
        ({"k": True}, "k: input should be a valid integer"),
        ({"pitch": "200"}, "pitch: input should be less than or equal to 127 (got 200)"),
        ({"pitch": "nan"}, "pitch: input should be a finite number"),
        ({"gate": "maybe"}, "gate: input should be 'auto', 'require' or 'off' (got 'maybe')"),
        (
            {"K": "3"},
            "there is no field 'K': the fields are like, k, offset, gate, pitch, octaves, family, bank,",
        ),
        ({"offset": "-1"}, "offset: input should be greater than or equal to 0 (got -1)"),
        ({"offset": "1000"}, "offset: input should be less than or equal to 999 (got 1000)"),
        ({"octaves": "yes"}, "octaves: input should be a valid boolean (got 'yes')"),
        ({"fold": "1"}, "fold: input should be a valid boolean (got '1')"),
        ({"min_confidence": "1.5"}, "min_confidence: input should be less than or equal to 1 (got 1.5)"),
        ({"family": 3}, "family: input should be a valid list (got 3)"),
        ({"bank": [3]}, "bank: input should be a valid string (got 3)"),
    ],
)
def test_bad_search_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(SearchOptions, values)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(InputError) as caught:
        check(SynthesizeRequest, {"x": "left", "pitch": 200})
    assert caught.value.message == (
        "x: input should be a valid number (got 'left'); y is missing; "
        "pitch: input should be less than or equal to 127 (got 200)"
    )


def test_a_whole_float_is_a_pitch() -> None:
    assert check(SynthesizeRequest, {"x": 0, "y": -1, "pitch": 60.0}).model_dump() == {
        "x": 0.0,
        "y": -1.0,
        "pitch": 60,
        "velocity": 100,
        "seconds": 4.0,
    }


SEARCH = DEFAULTS | {"stage1": None, "stage2": None, "audio": []}


@pytest.fixture
def upload_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(requests, "request_temp_dir", lambda: str(tmp_path))
    return tmp_path


def _parsed(descriptor: Any, **more: Any) -> dict[str, Any]:
    """What ``descriptor`` makes of a POST request, or {"error": message}."""

    async def page(request: Request) -> Response:
        try:
            parsed = await descriptor.from_http_request(request, None)
        except InputError as error:
            return JSONResponse({"error": error.message})
        finally:
            await request.close()
        values = parsed.model_dump(exclude={"audio"})
        values |= values.pop("request", {})
        audio = getattr(parsed, "audio", None)
        if audio is not None:
            several = isinstance(audio, list)
            contents = [path.read_bytes().decode() for path in (audio if several else [audio])]
            values["audio"] = contents if several else contents[0]
        return JSONResponse(values)

    async def go() -> dict[str, Any]:
        app = Starlette(routes=[Route("/", page, methods=["POST"])])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://timbrel") as client:
            answer = await client.post("/", **more)
            return dict(answer.json())

    return asyncio.run(go())


def _file(content: bytes = b"sound", name: str = "clip.wav") -> tuple[str, io.BytesIO]:
    return name, io.BytesIO(content)


def test_a_form_with_a_recording(upload_folder: Path) -> None:
    assert _parsed(SearchInput, files={"audio": _file()}, data={"k": "3", "pitch": "60"}) == SEARCH | {
        "audio": ["sound"],
        "k": 3,
        "pitch": 60.0,
    }
    assert _parsed(LocateInput, files={"audio": _file()}) == {"audio": "sound", "refine": True}


def test_a_form_with_several_recordings_families_and_banks(upload_folder: Path) -> None:
    parts = [("audio", _file(b"one")), ("audio", _file(b"two"))]
    parts += [("family", (None, "brass")), ("family", (None, "reed")), ("bank", (None, "a.syx"))]  # type: ignore[list-item]
    assert _parsed(SearchInput, files=parts) == SEARCH | {
        "audio": ["one", "two"],
        "family": ["brass", "reed"],
        "bank": ["a.syx"],
    }
    queried = _parsed(SearchInput, files={"audio": _file()}, params=[("family", "brass"), ("family", "reed")])
    assert queried["family"] == ["brass", "reed"]


def test_a_search_without_a_recording() -> None:
    assert _parsed(SearchInput, files={"like": (None, "dx7-1"), "k": (None, "3")}) == SEARCH | {
        "like": "dx7-1",
        "k": 3,
    }
    body = {"like": "dx7-1", "family": "brass", "pitch": 60}
    expected = {"like": "dx7-1", "family": ["brass"], "pitch": 60.0}
    assert _parsed(SearchInput, json=body) == SEARCH | expected
    assert _parsed(SearchInput, json={"like": "dx7-1"}, params={"k": "3"})["k"] == 3
    vectors = {"stage1": [1, 0.5], "stage2": [0.25]}
    assert _parsed(SearchInput, json=vectors) == SEARCH | {"stage1": [1.0, 0.5], "stage2": [0.25]}


@pytest.mark.parametrize(
    ("request_parts", "message"),
    [
        ({"json": {}}, "there is nothing to search with: send one to 8 recordings in the field 'audio' of a form"),
        ({"json": {"like": "a", "stage1": [1], "stage2": [1]}}, "a search takes one of these at a time"),
        ({"json": {"stage1": [1.0]}}, "stage1 and stage2 belong together"),
        ({"json": {"audio": "x"}}, "there is no field 'audio': the fields are like, k, "),
        ({"json": {"stage1": "AAAA", "stage2": [1]}}, "stage1: input should be a valid list"),
        ({"json": {"stage1": [1, "x"], "stage2": [1]}}, "stage1: input should be a valid number (got 'x')"),
        ({"content": b'{"stage1": [NaN], "stage2": [1]}', "headers": {"content-type": "application/json"}},
         "stage1: input should be a finite number"),
        ({"files": [("audio", _file()), ("like", (None, "a"))]}, "a search takes one of these at a time"),
        ({"files": [("audio", _file())] * 9}, "the field 'audio' is there 9 times: send at most 8 recordings"),
        ({"files": {"audio": _file(), "stage1": (None, "1")}}, "there is no field 'stage1'"),
        ({"files": {"audio": _file()}, "params": [("k", "1"), ("k", "2")]}, "the field 'k' is there more than once"),
    ],
)  # fmt: skip
def test_a_search_asks_with_one_thing(
    upload_folder: Path, request_parts: dict[str, Any], message: str
) -> None:
    assert message in _parsed(SearchInput, **request_parts)["error"]


def test_options_in_the_query_string_yield_to_the_form(upload_folder: Path) -> None:
    parsed = _parsed(SearchInput, files={"audio": _file()}, data={"k": "3"}, params={"k": "4", "gate": "off"})
    assert (parsed["k"], parsed["gate"]) == (3, "off")
    refused = _parsed(SearchInput, files={"audio": _file()}, data={"k": "3"}, params={"k": "0"})
    assert refused["error"].startswith("k: ")


@pytest.mark.parametrize("name", ["../../etc/passwd", "x" * 300, "a\x00b", "", "ä/ö.wav"])
def test_the_name_of_the_upload_is_not_used(upload_folder: Path, name: str) -> None:
    # httpx leaves the filename out if it is empty, so every form is written by hand.
    body = f'--b\r\ncontent-disposition: form-data; name="audio"; filename="{name}"\r\n\r\nsound\r\n--b--\r\n'
    parsed = _parsed(
        LocateInput, content=body.encode(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert parsed == {"audio": "sound", "refine": True}
    assert [path.name for path in upload_folder.iterdir()] == ["recording-0"]


@pytest.mark.parametrize(
    ("request_parts", "message"),
    [
        ({}, "the content type is missing"),
        (
            {"content": b"x", "headers": {"content-type": "text/plain"}},
            "the content type is text/plain: send the",
        ),
        ({"files": {"file": _file()}}, "the field 'audio' is missing (the form holds 'file')"),
        ({"files": {"x": (None, "1")}}, "the field 'audio' is missing (the form holds 'x')"),
        ({"files": {"audio": (None, "http://127.0.0.1/")}}, "the field 'audio' holds text, not a file"),
        ({"files": {"audio": _file(), "k": _file()}}, "the field 'k' holds a file"),
        ({"files": [("audio", _file()), ("k", (None, "1")), ("k", (None, "2"))]}, "there more than once"),
        ({"files": {"audio": _file()}, "data": {"top": "1"}}, "there is no field 'top'"),
        ({"files": {"audio": _file()}, "data": {"k": "9" * 10_000}}, "the form cannot be read"),
        (
            {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}},
            "the form cannot be read (Missing boundary",
        ),
        (
            {"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            "the form cannot be read",
        ),
    ],
)
def test_bad_forms(upload_folder: Path, request_parts: dict[str, Any], message: str) -> None:
    assert message in _parsed(SearchInput, **request_parts)["error"]


@pytest.mark.parametrize(
    ("request_parts", "message"),
    [
        ({"content": b""}, "the body is not JSON"),
        ({"content": b'{"x": '}, "the body is not JSON"),
        ({"content": b"\xff\xfe"}, "the body is not JSON"),
        ({"content": b"[" * 60_000}, "the body is not JSON"),
        ({"json": [1, 2]}, "the body is no JSON object"),
        (
            {"content": b"x=1", "headers": {"content-type": "application/x-www-form-urlencoded"}},
            "content type",
        ),
        ({"content": b'{"x": NaN, "y": 0, "pitch": 60}'}, "x: input should be a finite number"),
        ({"content": b'{"x": 1e999, "y": 0, "pitch": 60}'}, "x: input should be a finite number"),
        ({"json": {"x": 0, "y": 0, "pitch": 60, "seconds": 0}}, "seconds: input should be greater than"),
        ({"json": {"x": 0, "y": 0, "pitch": 60, "velocity": 0}}, "velocity: input should be greater than"),
        ({"json": {"x": 0, "y": 0, "pitch": 60, "velocity": 128}}, "velocity: input should be less than"),
        (
            {"json": {"x": 0, "y": 0, "pitch": 60, "velocity": 64.5}},
            "velocity: input should be a valid integer",
        ),
        ({"json": {"x": 0, "y": 0, "pitch": 60, "loudness": 1}}, "there is no field 'loudness'"),
    ],
)
def test_bad_json(request_parts: dict[str, Any], message: str) -> None:
    assert message in _parsed(SynthesizeInput, **request_parts)["error"]


def test_an_instrument_is_a_place_and_a_length() -> None:
    assert _parsed(InstrumentInput, json={"x": 1, "y": -0.4}) == {"x": 1.0, "y": -0.4, "seconds": 4.0}
    for body, says in (
        ({"x": 0}, "y is missing"),
        ({"x": 0, "y": 0, "seconds": 11}, "seconds: "),
        ({"x": 0, "y": 0, "pitch": 60}, "there is no field 'pitch': the fields are x, y, seconds"),
    ):
        assert says in _parsed(InstrumentInput, json=body)["error"]


def test_one_recording_is_located_at_a_time(upload_folder: Path) -> None:
    twice = [("audio", _file()), ("audio", _file())]
    error = _parsed(LocateInput, files=twice)["error"]
    assert error == "the field 'audio' is there 2 times: send one recording per request"
    assert (
        "the field 'audio' is missing (the form holds 'like')"
        in _parsed(LocateInput, files={"like": (None, "a")})["error"]
    )


def test_good_json() -> None:
    assert _parsed(
        SynthesizeInput, json={"x": 0.2, "y": -0.4, "pitch": 60, "velocity": 64, "seconds": 1}
    ) == {
        "x": 0.2,
        "y": -0.4,
        "pitch": 60,
        "velocity": 64,
        "seconds": 1.0,
    }
