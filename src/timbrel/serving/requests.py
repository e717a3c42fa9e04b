"""From an HTTP request to checked arguments: BentoML's input descriptors with a parser of our own.

BentoML's own parser fetches the URL when a file field holds text, ignores fields it does not know, and answers a bad
form with a 500. This one takes what /docs.json describes and says what is wrong with anything else.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from _bentoml_sdk import IODescriptor
from bentoml._internal.context import request_temp_dir
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from timbrel.errors import InputError
from timbrel.serving.exchange import noting
from timbrel.serving.schemas import (
    AudioFile,
    InstrumentRequest,
    LocateOptions,
    SearchOptions,
    SynthesizeRequest,
)

Model = TypeVar("Model", bound=BaseModel)
_FORM = 'send the recording as multipart/form-data in the field "audio"'


class SearchInput(SearchOptions, IODescriptor):
    """A recording, and how to search with it."""

    audio: AudioFile

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> SearchInput:
        with noting():
            upload, fields = await _form(request, SearchOptions)
            check(SearchOptions, request.query_params)
            options = check(SearchOptions, {**request.query_params, **fields})
            return cls(audio=await _stored(upload), **options.model_dump())


class LocateInput(LocateOptions, IODescriptor):
    """A recording, and how to locate it."""

    audio: AudioFile

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> LocateInput:
        with noting():
            upload, fields = await _form(request, LocateOptions)
            check(LocateOptions, request.query_params)
            options = check(LocateOptions, {**request.query_params, **fields})
            return cls(audio=await _stored(upload), **options.model_dump())


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


async def _form(request: Request, options: type[BaseModel]) -> tuple[UploadFile, dict[str, str]]:
    """The recording and the text fields of a form."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise InputError(f"the content type is {kind or 'missing'}: {_FORM}")
    try:
        form = await request.form(max_files=4, max_fields=16, max_part_size=4096)
    except HTTPException as error:
        raise InputError(f"the form cannot be read ({str(error.detail).rstrip('.')}): {_FORM}") from None
    except ClientDisconnect:
        raise InputError("the upload was cut off: send it again") from None
    uploads = [value for name, value in form.multi_items() if name == "audio"]
    if not uploads:
        found = ", ".join(repr(name[:50]) for name in form) or "nothing"
        raise InputError(f"the field 'audio' is missing (the form holds {found}): {_FORM}")
    if len(uploads) > 1:
        raise InputError(f"the field 'audio' is there {len(uploads)} times: send one recording per request")
    upload = uploads[0]
    if not isinstance(upload, UploadFile):
        raise InputError(
            "the field 'audio' holds text, not a file: give it a filename, as curl -F audio=@clip.wav does"
        )
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if name == "audio":
            continue
        if name not in options.model_fields:
            known = ", ".join(["audio", *options.model_fields])
            raise InputError(f"there is no field {name[:50]!r}: the fields are {known}")
        if isinstance(value, UploadFile):
            raise InputError(f"the field {name!r} holds a file: send it as text")
        if name in fields:
            raise InputError(f"the field {name!r} is there more than once: send it once")
        fields[name] = value
    return upload, fields


async def _stored(upload: UploadFile) -> Path:
    """The upload as a file that lives as long as the request. The client's name for it is not used."""
    path = Path(request_temp_dir()) / "recording"

    def copy() -> None:
        with path.open("wb") as target:
            shutil.copyfileobj(upload.file, target, 1 << 20)

    await asyncio.to_thread(copy)
    return path


async def _json_object(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json":
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
