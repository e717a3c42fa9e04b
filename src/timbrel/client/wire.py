"""Calls as HTTP requests, and answers from HTTP: what is said, without a connection to say it over."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import soundfile

from timbrel.audio import Audio
from timbrel.client import calls
from timbrel.client.calls import Call
from timbrel.client.reading import query, read
from timbrel.client.results import InstrumentArchive, PatchFile
from timbrel.engine.results import (
    Hit,
    Location,
    MapLimits,
    Neighbour,
    PatchInfo,
    PatchPage,
    Query,
    SearchResult,
    ServerInfo,
)
from timbrel.errors import NotFound, ProtocolError, TimbrelError, Unavailable, error_of

_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request: JSON, or a form of fields and files, or neither."""

    method: str
    path: str
    query: Mapping[str, Any] | None = None
    json: Mapping[str, Any] | None = None
    fields: Mapping[str, Any] | None = None
    audio: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


def question(call: Call[Any]) -> Question:
    """The request that asks a call. Raises NotFound for a patch_id that no path can hold."""
    match call:
        case calls.Search():
            return _search(call)
        case calls.Locate(recording=recording, refine=refine):
            return _post("/locate", fields={"refine": _word(refine)}, audio=(recording,))
        case calls.Synthesize():
            note = {"x": call.x, "y": call.y, "pitch": call.pitch, "velocity": call.velocity}
            return _post("/synthesize", json=note | {"seconds": call.seconds})
        case calls.ExportInstrument(x=x, y=y, seconds=seconds):
            return _post("/instrument", json={"x": x, "y": y, "seconds": seconds})
        case calls.ListPatches():
            page = {"offset": call.offset, "limit": call.limit}
            return _get("/patches", page | {"family": call.families, "bank": call.banks})
        case calls.GetPatch(patch_id=patch_id):
            return _get(_patch_path(patch_id))
        case calls.GetPatchFile(patch_id=patch_id):
            return _get(f"{_patch_path(patch_id)}/file")
        case calls.GetPreview(patch_id=patch_id):
            return _get(f"{_patch_path(patch_id)}/preview")
        case calls.GetInfo():
            return _get("/info")
    raise TypeError(f"{type(call).__name__} is no call of timbrel.client.calls")


def result(call: Call[Any], answer: Answer) -> Any:
    """What a good answer to ``call`` says. Raises ProtocolError for one that is not Timbrel's."""
    wanted, read = _READERS[type(call)]
    if answer.status != 200 or answer.media_type not in wanted:
        raise ProtocolError(
            f"what answers is no Timbrel ({answer.status}, {answer.media_type or 'no content type'}): check the address"
        )
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise ProtocolError(
            f"the answer cannot be read ({type(error).__name__}: {error}): is the service another version?"
        ) from error


def error(answer: Answer) -> TimbrelError:
    """The error that a status of 400 or more stands for."""
    try:
        told = json.loads(answer.body)["error"]
        code, message = told["code"], told["message"]
    except (KeyError, TypeError, ValueError, RecursionError):
        code = message = None
    if isinstance(code, str) and isinstance(message, str):
        return error_of(code, message, answer.status)
    if answer.status in (502, 503, 504):
        return Unavailable(f"a proxy answered {answer.status} instead of Timbrel: try again in a few seconds")
    return ProtocolError(f"what answers is no Timbrel (status {answer.status}): check the address")


def _search(call: calls.Search) -> Question:
    terms, filters = call.terms, call.terms.filters
    options: dict[str, Any] = {
        "k": terms.k,
        "offset": terms.offset,
        "gate": call.gate.value,
        "family": list(filters.families),
        "bank": list(filters.banks),
        "min_confidence": filters.min_confidence,
    }
    if call.pitch is not None:
        options["pitch"] = call.pitch
    truths = {"octaves": terms.octaves, "fold": terms.fold}
    if call.like is not None:
        return _post("/search", json=options | truths | {"like": call.like})
    if call.vectors is not None:
        stage1, stage2 = (vector.tolist() for vector in call.vectors)
        return _post("/search", json=options | truths | {"stage1": stage1, "stage2": stage2})
    words = {name: _word(truth) for name, truth in truths.items()}
    return _post("/search", fields=options | words, audio=call.recordings)


def _get(path: str, query: Mapping[str, Any] | None = None) -> Question:
    return Question(method="GET", path=path, query=query)


def _post(path: str, **content: Any) -> Question:
    return Question(method="POST", path=path, **content)


def _word(truth: bool) -> str:
    return "true" if truth else "false"


def _patch_path(patch_id: str) -> str:
    # Servers and proxies take slashes and dots for folders, escaped or not.
    if "/" in patch_id or patch_id in ("", ".", ".."):
        raise NotFound(f"there is no patch {patch_id!r}; take a patch_id from a search")
    return f"/patches/{quote(patch_id, safe='')}"


def _search_result(answer: Answer) -> SearchResult:
    told = json.loads(answer.body)
    return SearchResult(
        query=_query(told["query"]),
        hits=tuple(read(Hit, hit.__getitem__) for hit in told["hits"]),
        total=int(told["total"]),
        offset=int(told["offset"]),
    )


def _query(told: Mapping[str, Any]) -> Query:
    return query(told.__getitem__, told["gate"].__getitem__)


def _location(answer: Answer) -> Location:
    told = json.loads(answer.body)
    nearest = tuple(read(Neighbour, each.__getitem__) for each in told["nearest"])
    return read(Location, told.__getitem__, query=_query(told["query"]), nearest=nearest)


def note(wav: bytes) -> Audio:
    """A note as it was sent. Raises ValueError, or soundfile's RuntimeError, for what is none."""
    samples, sample_rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    if samples.ndim != 1:
        raise ValueError("a note has one channel")
    return Audio(np.ascontiguousarray(samples), int(sample_rate))


def _instrument(answer: Answer) -> InstrumentArchive:
    return InstrumentArchive(name=_filename(answer).removesuffix(".zip"), data=answer.body)


def _patch_file(answer: Answer) -> PatchFile:
    return PatchFile(filename=_filename(answer), media_type=answer.media_type, data=answer.body)


def _filename(answer: Answer) -> str:
    """The name in a Content-Disposition, without any folder."""
    disposition = answer.headers["content-disposition"]
    found = re.search(r"filename\*=UTF-8''([^;\s]+)", disposition)
    name = unquote(found[1]) if found else ""
    if not found and (plain := re.search(r'filename="([^"]+)"', disposition)):
        name = plain[1]
    return bare_name(name)


def bare_name(name: str) -> str:
    """A file's name, if it is no more than that. Raises ValueError."""
    if name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
        raise ValueError("the file has no usable name")
    return name


def _page(answer: Answer) -> PatchPage:
    told = json.loads(answer.body)
    return PatchPage(
        patches=tuple(_patch(each) for each in told["patches"]),
        total=int(told["total"]),
        offset=int(told["offset"]),
    )


def _patch(told: Mapping[str, Any]) -> PatchInfo:
    return read(PatchInfo, told.__getitem__)


def _info(answer: Answer) -> ServerInfo:
    told = json.loads(answer.body)
    return read(ServerInfo, told.__getitem__, map=read(MapLimits, told["map"].__getitem__))


# By call: the media types of a good answer, and what reads it.
_READERS: dict[type[Call[Any]], tuple[tuple[str, ...], Callable[[Answer], Any]]] = {
    calls.Search: ((_JSON,), _search_result),
    calls.Locate: ((_JSON,), _location),
    calls.Synthesize: (("audio/wav",), lambda answer: note(answer.body)),
    calls.ExportInstrument: (("application/zip",), _instrument),
    calls.ListPatches: ((_JSON,), _page),
    calls.GetPatch: ((_JSON,), lambda answer: _patch(json.loads(answer.body))),
    calls.GetPatchFile: (("application/octet-stream", _JSON), _patch_file),
    calls.GetPreview: (("audio/mpeg",), lambda answer: answer.body),
    calls.GetInfo: ((_JSON,), _info),
}
