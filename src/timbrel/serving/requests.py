"""From an HTTP request to checked arguments: BentoML's input descriptors with a parser of our own.

BentoML's own parser fetches the URL when a file field holds text, ignores fields it does not know, and answers a bad
form with a 500. This one takes what /docs.json describes and says what is wrong with anything else.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

from _bentoml_sdk import IODescriptor
from bentoml._internal.context import request_temp_dir
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from timbrel.engine.arguments import MAX_RECORDINGS
from timbrel.errors import InputError
from timbrel.serving.exchange import noting
from timbrel.serving.schemas import (
    AudioFile,
    InstrumentRequest,
    LocateOptions,
    SearchOptions,
    SearchRequest,
    SynthesizeRequest,
)

Model = TypeVar("Model", bound=BaseModel)
_FORM = 'send the recording as multipart/form-data in the field "audio"'
_ASK = (
    f"one to {MAX_RECORDINGS} recordings in the field 'audio' of a form; or 'like' with a patch_id; or 'stage1' and "
    "'stage2' as application/json"
)
_JSON = "application/json"


class SearchInput(IODescriptor):
    """What is searched with, and how: a form with recordings or a patch, or JSON with a patch or vectors."""

    audio: list[AudioFile]
    request: SearchRequest

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> SearchInput:
        with noting():
            queried = text_values(request.query_params.multi_items(), SearchOptions)
            check(SearchOptions, queried)
            uploads: list[UploadFile] = []
            if _kind(request) == _JSON:
                asked = check(SearchRequest, {**queried, **await _json_object(request)})
            else:
                uploads, fields = await _form(request, SearchOptions, most=MAX_RECORDINGS)
                asked = SearchRequest(**check(SearchOptions, {**queried, **fields}).model_dump())
            _check_asked(asked, recordings=len(uploads))
            return cls(audio=[await _stored(each, n) for n, each in enumerate(uploads)], request=asked)


class LocateInput(LocateOptions, IODescriptor):
    """A recording, and how to locate it."""

    audio: AudioFile

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> LocateInput:
        with noting():
            uploads, fields = await _form(request, LocateOptions)
            check(LocateOptions, request.query_params)
            options = check(LocateOptions, {**request.query_params, **fields})
            return cls(audio=await _stored(uploads[0]), **options.model_dump())


class SynthesizeInput(SynthesizeRequest, IODescriptor):
    """A place on the timbre map, a key, a velocity and a length."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> SynthesizeInput:
        with noting():
            return check(cls, await _json_object(request))


class InstrumentInput(InstrumentRequest, IODescriptor):
    """A place on the timbre map and a length."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> InstrumentInput:
        with noting():
            return check(cls, await _json_object(request))


def check(model: type[Model], values: Mapping[str, Any]) -> Model:
    """``values`` as the model, or an InputError that names every field that is wrong, in one line."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise InputError("; ".join(_wrong(problem, known) for problem in error.errors()[:5])) from None


def _wrong(problem: Any, known: str) -> str:
    field = str(problem["loc"][0])[:50] if problem["loc"] else "the body"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "extra_forbidden":
        return f"there is no field {field!r}: the fields are {known}"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{field}: {message} (got {repr(problem['input'])[:50]})"


def _check_asked(asked: SearchRequest, *, recordings: int) -> None:
    """That a search is asked with one thing."""
    vectors = [each is not None for each in (asked.stage1, asked.stage2)]
    things = [recordings > 0, asked.like is not None, any(vectors)]
    if sum(things) > 1:
        raise InputError(f"a search takes one of these at a time: {_ASK}")
    if not any(things):
        raise InputError(f"there is nothing to search with: send {_ASK}")
    if vectors.count(True) == 1:
        raise InputError("stage1 and stage2 belong together: send both vectors of the sound")


async def _form(
    request: Request, options: type[BaseModel], *, most: int = 1
) -> tuple[list[UploadFile], dict[str, Any]]:
    """The recordings, at most ``most``, and the text fields of a form."""
    kind = _kind(request)
    if kind != "multipart/form-data":
        raise InputError(f"the content type is {kind or 'missing'}: {_FORM}")
    try:
        form = await request.form(max_files=MAX_RECORDINGS + 4, max_fields=128, max_part_size=4096)
    except HTTPException as error:
        raise InputError(f"the form cannot be read ({str(error.detail).rstrip('.')}): {_FORM}") from None
    except ClientDisconnect:
        raise InputError("the upload was cut off: send it again") from None
    uploads = [value for name, value in form.multi_items() if name == "audio"]
    if not uploads and not ("like" in form and "like" in options.model_fields):
        found = ", ".join(repr(name[:50]) for name in form) or "nothing"
        raise InputError(f"the field 'audio' is missing (the form holds {found}): {_FORM}")
    if len(uploads) > most:
        allowed = "one recording" if most == 1 else f"at most {most} recordings"
        raise InputError(f"the field 'audio' is there {len(uploads)} times: send {allowed} per request")
    files = [upload for upload in uploads if isinstance(upload, UploadFile)]
    if len(files) < len(uploads):
        raise InputError(
            "the field 'audio' holds text, not a file: give it a filename, as curl -F audio=@clip.wav does"
        )
    texts = []
    for name, value in form.multi_items():
        if name == "audio":
            continue
        if name not in options.model_fields:
            known = ", ".join(["audio", *options.model_fields])
            raise InputError(f"there is no field {name[:50]!r}: the fields are {known}")
        if isinstance(value, UploadFile):
            raise InputError(f"the field {name!r} holds a file: send it as text")
        texts.append((name, value))
    return files, text_values(texts, options)


def text_values(items: Iterable[tuple[str, str]], options: type[BaseModel]) -> dict[str, Any]:
    """Text fields by name; only those that take several values may be there more than once."""
    several = [name for name, field in options.model_fields.items() if get_origin(field.annotation) is list]
    values: dict[str, Any] = {}
    for name, value in items:
        if name in several:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise InputError(f"the field {name[:50]!r} is there more than once: send it once")
        else:
            values[name] = value
    return values


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def _stored(upload: UploadFile, number: int = 0) -> Path:
    """The upload as a file that lives as long as the request. The client's name for it is not used."""
    path = Path(request_temp_dir()) / f"recording-{number}"

    def copy() -> None:
        with path.open("wb") as target:
            shutil.copyfileobj(upload.file, target, 1 << 20)

    await asyncio.to_thread(copy)
    return path


async def _json_object(request: Request) -> dict[str, Any]:
    kind = _kind(request)
    if kind not in (_JSON, ""):
        raise InputError(f"the content type is {kind}: send the fields as application/json")
    try:
        values = json.loads(await request.body())
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise InputError('the body is not JSON: send an object such as {"x": 0.2, "y": -0.4}') from None
    except ClientDisconnect:
        raise InputError("the request was cut off: send it again") from None
    if not isinstance(values, dict):
        raise InputError('the body is no JSON object: send one such as {"x": 0.2, "y": -0.4}')
    return values
