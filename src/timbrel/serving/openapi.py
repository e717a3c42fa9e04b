"""/docs.json: what the service takes and gives, as OpenAPI 3.1.

BentoML's own document knows neither the GET routes, nor the error envelope, nor a binary answer; this one is put
together from the same models that check the requests and make the answers.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from timbrel.engine.arguments import MAX_RECORDINGS
from timbrel.library.bundle import Bundle
from timbrel.serving.answers import ErrorAnswer, InfoAnswer, LocateAnswer, PatchesAnswer, SearchAnswer
from timbrel.serving.exchange import BUNDLE
from timbrel.serving.schemas import (
    InstrumentRequest,
    LocateOptions,
    PatchesQuery,
    SearchOptions,
    SearchRequest,
    SynthesizeRequest,
)

API_VERSION = "1.0"
# What `timbrel.serving.guard` refuses, whatever is asked.
_AT_THE_DOOR = (401, 421, 429)
_SCHEMAS = "#/components/schemas/{model}"
_BUNDLE = {
    BUNDLE: {
        "description": "The id of the bundle that the answer is of, all of it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    }
}
_ERRORS = {
    400: "The request cannot be answered as it is; the message says what to change.",
    401: "An API key is needed here: none was sent, or one that is not known.",
    404: "There is no such patch.",
    413: "The recording is too large or too long.",
    421: "Without API keys the service answers to localhost and to addresses, not to this host name.",
    422: "The recording does not suit the question, for example: no pitch where one is required.",
    429: "The API key has asked more often than it may; Retry-After says when to come again.",
    500: "Something went wrong inside; the service's log tells what.",
    503: "The service is busy or a model does not answer; try again.",
    504: "The answer took too long; try again later.",
}


def document(bundle: Bundle) -> dict[str, Any]:
    """The OpenAPI document of a service over this bundle: the map's limits are the bundle's."""
    models: list[tuple[type[BaseModel], Any]] = [
        (ErrorAnswer, "serialization"),
        (SearchAnswer, "serialization"),
        (InfoAnswer, "serialization"),
        (PatchesAnswer, "serialization"),
        (LocateAnswer, "serialization"),
        (SynthesizeRequest, "validation"),
        (InstrumentRequest, "validation"),
        (SearchOptions, "validation"),
        (SearchRequest, "validation"),
        (LocateOptions, "validation"),
        (PatchesQuery, "validation"),
    ]
    _, definitions = models_json_schema(models, ref_template=_SCHEMAS)
    schemas = definitions["$defs"]
    _keep_to_the_map(schemas["SynthesizeRequest"], bundle, "a key and a length")
    _keep_to_the_map(schemas["InstrumentRequest"], bundle, "and how long each note is")
    _describe_vectors(schemas["SearchRequest"], bundle)
    for name in ("SearchRequest", "SearchOptions", "PatchesQuery"):
        _name_what_there_is(schemas[name]["properties"], bundle)
    options, locating = schemas.pop("SearchOptions"), schemas.pop("LocateOptions")
    listing = schemas.pop("PatchesQuery")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Timbrel",
            "version": API_VERSION,
            "description": "Which synth patch sounds like this recording, and what does this point of the timbre map "
            f"sound like? Bundle {bundle.id[:12]}: {len(bundle.patches)} patches.",
        },
        "servers": [{"url": "/"}],
        # Whether a key is needed depends on where the service listens.
        "security": [{}, {"key": []}],
        "paths": {
            "/search": {"post": _search(options, bundle)},
            "/synthesize": {"post": _synthesize()},
            "/instrument": {"post": _instrument()},
            "/locate": {"post": _locate(locating)},
            "/info": {"get": _operation("info", "What is served?", _json("InfoAnswer"), (500, 503))},
            "/patches": {"get": _patches(listing)},
            "/patches/{patch_id}": {"get": _patch(bundle)},
            "/patches/{patch_id}/file": {"get": _patch_file(bundle)},
            "/patches/{patch_id}/preview": {"get": _patch_preview(bundle)},
            "/livez": {"get": _plain("livez", "Whether the process lives.")},
            "/readyz": {
                "get": _plain("readyz", "Whether it can answer: 503 while a model server is away.", 503)
            },
            "/metrics": {"get": _plain("metrics", "Metrics for Prometheus.", *_AT_THE_DOOR)},
        },
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _keep_to_the_map(schema: dict[str, Any], bundle: Bundle, more: str) -> None:
    limits = bundle.manifest.map
    for name in ("x", "y"):
        schema["properties"][name] |= {"minimum": -limits.radius, "maximum": limits.radius}
    if "pitch" in schema["properties"]:
        schema["properties"]["pitch"] |= {"minimum": limits.pitch_low, "maximum": limits.pitch_high}
    schema["description"] = f"A place on the timbre map (within {limits.radius:g} of its centre), {more}."
    if "velocity" in schema["properties"]:
        schema["properties"]["velocity"]["description"] += (
            f" The generator has learnt velocities {limits.velocity_low} to {limits.velocity_high}."
        )


def _describe_vectors(schema: dict[str, Any], bundle: Bundle) -> None:
    sizes = {"stage1": bundle.index.dimension, "stage2": bundle.stage2.shape[1]}
    for name, size in sizes.items():
        schema["properties"][name] |= {"minItems": size, "maxItems": size}


def _name_what_there_is(properties: dict[str, Any], bundle: Bundle) -> None:
    """Families, banks and a patch of this library: any other is refused."""
    patch = bundle.patches[0]
    if "like" in properties:
        properties["like"]["example"] = patch.patch_id
    for name in ("family", "bank"):
        there = sorted({getattr(each, name) for each in bundle.patches})
        properties[name]["items"] = {"type": "string", "enum": there}
        properties[name]["example"] = [getattr(patch, name)]


def _search(options: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    recordings = {
        "type": "array",
        "maxItems": MAX_RECORDINGS,
        "items": {"type": "string", "contentMediaType": "application/octet-stream"},
        "description": "A recording: WAV, FLAC, OGG, MP3 or AIFF. Repeat the field for several of one sound: the mean "
        "of their vectors is searched with, at the median of their pitches where these agree.",
    }
    body = _form({"audio": recordings} | options["properties"], required=())
    schema = {"$ref": _SCHEMAS.format(model="SearchRequest")}
    body["content"]["application/json"] = {"schema": schema, "examples": _search_examples(bundle)}
    return _operation(
        "search",
        "Which patches sound like this?",
        _json("SearchAnswer") | {"description": "The nearest patches, in pages."},
        (400, 404, 413, 422, 500, 503, 504),
        description="By one recording or by several of one sound (the form's field audio, repeated); by a patch of the "
        "library (like); or by the vectors of `timbrel embed` (JSON). Near-duplicates are one hit.",
        requestBody=body,
        parameters=_in_the_query(options),
    )


def _search_examples(bundle: Bundle) -> dict[str, Any]:
    """Bodies that this service answers, but for the vectors, which are cut short."""
    patch = bundle.patches[0]
    by_patch = {"like": patch.patch_id, "pitch": 60, "k": 5}
    filtered = {
        "like": patch.patch_id,
        "family": [patch.family],
        "bank": [patch.bank],
        "octaves": True,
        "offset": 10,
    }
    vectors = {"stage1": [0.12, -0.08], "stage2": [0.03, 0.01], "pitch": 60}
    return {
        "by a patch": {"summary": "What else sounds like this patch, near C4?", "value": by_patch},
        "filtered, second page": {"summary": "In one family and bank, in any octave", "value": filtered},
        "by vectors": {"summary": "Vectors of `timbrel embed` (cut short here)", "value": vectors},
    }


def _in_the_query(options: dict[str, Any]) -> list[dict[str, Any]]:
    """The form's options as parameters of the query string."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": "The same as the form field, which wins where both are sent.",
            "schema": _in_a_query(schema),
        }
        for name, schema in options["properties"].items()
    ]


def _synthesize() -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": _SCHEMAS.format(model="SynthesizeRequest")}}}
    return _operation(
        "synthesize",
        "What does this place of the timbre map sound like?",
        {"description": "The note: WAV, 24 kHz, mono, 16 bit.", "content": {"audio/wav": _BINARY}},
        (400, 413, 500, 503, 504),
        requestBody={"required": True, "content": body},
    )


def _instrument() -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": _SCHEMAS.format(model="InstrumentRequest")}}}
    return _operation(
        "instrument",
        "This place of the timbre map as an instrument for a sampler.",
        {
            "description": "A zip: one SFZ file, a WAV file per key of the map (24 kHz, mono, 16 bit), a README.",
            "content": {"application/zip": _BINARY},
        },
        (400, 413, 500, 503, 504),
        requestBody={"required": True, "content": body},
    )


def _locate(options: dict[str, Any]) -> dict[str, Any]:
    recording = {"audio": {"type": "string", "contentMediaType": "application/octet-stream"}}
    return _operation(
        "locate",
        "Where on the timbre map does this recording lie?",
        _json("LocateAnswer"),
        (400, 413, 422, 500, 503, 504),
        requestBody=_form(recording | options["properties"]),
        parameters=_in_the_query(options),
    )


def _patches(query: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": _in_a_query(schema)}
        for name, schema in query["properties"].items()
    ]
    answer = _json("PatchesAnswer")
    return _operation("patches", "The library, page by page.", answer, (400, 500, 503), parameters=parameters)


def _patch(bundle: Bundle) -> dict[str, Any]:
    answer = _json("PatchAnswer")
    return _operation(
        "patch", "One patch of the library.", answer, (404, 500, 503), parameters=[_patch_id(bundle)]
    )


def _patch_file(bundle: Bundle) -> dict[str, Any]:
    content = {"application/octet-stream": _BINARY, "application/json": {"schema": {"type": "object"}}}
    answer = {"description": "A .syx file, or the description of a soundfont's preset.", "content": content}
    return _operation("patch_file", "The patch of a hit.", answer, (404, 500), parameters=[_patch_id(bundle)])


def _patch_preview(bundle: Bundle) -> dict[str, Any]:
    answer = {"description": "A few seconds of the patch, MP3.", "content": {"audio/mpeg": _BINARY}}
    return _operation(
        "patch_preview", "The sound of a hit.", answer, (404, 500), parameters=[_patch_id(bundle)]
    )


_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}


def _patch_id(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": "patch_id",
        "in": "path",
        "required": True,
        "description": "From a hit of a search.",
        "schema": {"type": "string", "minLength": 1},
        "example": bundle.patches[0].patch_id,
    }


def _operation(
    name: str, summary: str, answer: dict[str, Any], errors: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    statuses = sorted({*errors, *_AT_THE_DOOR})
    responses = {"200": {**answer, "headers": _BUNDLE}} | {str(status): _error(status) for status in statuses}
    return {"operationId": name, "summary": summary, "tags": ["Timbrel"], **more, "responses": responses}


def _plain(name: str, summary: str, *errors: int) -> dict[str, Any]:
    answer = {"description": "Yes.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    responses = {"200": answer} | {str(status): _error(status) for status in errors}
    return {"operationId": name, "summary": summary, "tags": ["Operations"], "responses": responses}


def _error(status: int) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(model="ErrorAnswer")}
    return {"description": _ERRORS[status], "content": {"application/json": {"schema": schema}}}


def _json(model: str) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(model=model)}
    return {"description": "The answer.", "content": {"application/json": {"schema": schema}}}


def _form(properties: dict[str, Any], required: tuple[str, ...] = ("audio",)) -> dict[str, Any]:
    fields = {name: _in_a_query(schema) for name, schema in properties.items()}
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _in_a_query(schema: dict[str, Any]) -> dict[str, Any]:
    """A query string and a form know no null: what is not sent is not given."""
    kept = {name: value for name, value in schema.items() if not (name == "default" and value is None)}
    alternatives = [each for each in kept.pop("anyOf", []) if each != {"type": "null"}]
    return kept | (alternatives[0] if alternatives else {})
