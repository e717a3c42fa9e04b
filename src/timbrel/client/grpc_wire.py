"""Calls as messages of ``timbrel.v1``, and answers from them: what is said, without a channel to say it over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

from timbrel.client import calls, wire
from timbrel.client.calls import Call
from timbrel.client.patience import Patience, Refused, judged, retry_after
from timbrel.client.reading import Told, query, read
from timbrel.client.results import InstrumentArchive, PatchFile
from timbrel.client.service import untrusted
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
from timbrel.errors import (
    AudioTooLarge,
    DeadlineExceeded,
    ProtocolError,
    TimbrelError,
    Unavailable,
    Unreachable,
    error_of,
)
from timbrel.v1 import timbrel_pb2 as pb

CODE = "timbrel-code"
"""Trailing metadata of an error: its stable code."""

# Of what gRPC refuses by itself when too many ask at once.
_AGAIN_SECONDS = 2.0
_GATES = {"auto": pb.GATE_AUTO, "require": pb.GATE_REQUIRE, "off": pb.GATE_OFF}
# For codes that this version does not know.
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 422,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class Method(NamedTuple):
    """How a call is asked; ``read`` gets the response, or the list of them where they come as a stream."""

    name: str
    message: Callable[[Any], Any]
    read: Callable[[Any], Any]
    stream: bool = False


def method(call: Call[Any]) -> Method:
    return _METHODS[type(call)]


def result(call: Call[Any], response: Any) -> Any:
    """What a good answer to ``call`` says. Raises ProtocolError for one that is not Timbrel's."""
    try:
        return method(call).read(response)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ProtocolError(
            f"the answer cannot be read ({type(error).__name__}: {error}): is the service another version?"
        ) from error


def error(
    address: str, patience: Patience, status: grpc.StatusCode, details: str, trailing: Sequence[Any]
) -> TimbrelError | Refused:
    """What the end of a call with an error stands for; Refused where it may be made again."""
    code = next((value for key, value in trailing if key == CODE), None)
    if isinstance(code, str):
        return judged(error_of(code, details, _STATUSES.get(status, 500)), retry_after(dict(trailing)))
    told_shortly = " ".join(details.split())[:300]
    match status:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                DeadlineExceeded(f"no answer from {address} in time: ask for less, or allow a longer timeout")
                if patience.left > 0
                else patience.over()
            )
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return untrusted(address, told_shortly) or Refused(
                Unreachable(
                    f"no connection to {address}, or it broke ({told_shortly}): check the address, and that the "
                    "service runs (timbrel serve)"
                )
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
            return AudioTooLarge(
                f"the question is larger than {address} takes: send a shorter or a compressed recording"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Refused(Unavailable(f"{address} is busy: try again in a few seconds"), _AGAIN_SECONDS)
    return ProtocolError(
        f"what answers at {address} is no Timbrel ({status.name}: {told_shortly}): check the address"
    )


def _search(call: calls.Search) -> pb.SearchRequest:
    terms, filters = call.terms, call.terms.filters
    request = pb.SearchRequest(
        options=pb.SearchOptions(
            k=terms.k,
            offset=terms.offset,
            gate=_GATES[call.gate.value],
            pitch=call.pitch,
            octaves=terms.octaves,
            families=filters.families,
            banks=filters.banks,
            min_confidence=filters.min_confidence,
            fold=terms.fold,
        )
    )
    if call.like is not None:
        request.like = call.like
    elif call.vectors is not None:
        stage1, stage2 = (vector.tolist() for vector in call.vectors)
        request.vectors.CopyFrom(pb.Vectors(stage1=stage1, stage2=stage2))
    else:
        request.recordings.CopyFrom(pb.Recordings(audio=call.recordings))
    return request


def _found(response: pb.SearchResponse) -> SearchResult:
    hits = tuple(read(Hit, _of(hit)) for hit in response.hits)
    return SearchResult(query=_query(response.query), hits=hits, total=response.total, offset=response.offset)


def _query(told: pb.Query) -> Query:
    return query(_of(told), _of(told.gate))


def _location(response: pb.LocateResponse) -> Location:
    nearest = tuple(read(Neighbour, _of(each)) for each in response.nearest)
    return read(Location, _of(response), query=_query(response.query), nearest=nearest)


def _note(call: calls.Synthesize) -> pb.SynthesizeRequest:
    return pb.SynthesizeRequest(
        x=call.x, y=call.y, pitch=call.pitch, velocity=call.velocity, seconds=call.seconds
    )


def _archive(parts: Sequence[pb.FilePart]) -> InstrumentArchive:
    data = b"".join(part.data for part in parts)
    if len(data) != parts[0].total_bytes:
        raise ValueError(f"{len(data)} of {parts[0].total_bytes} bytes came")
    name = wire.bare_name(parts[0].filename)
    return InstrumentArchive(name=name.removesuffix(".zip"), data=data)


def _listing(call: calls.ListPatches) -> pb.ListPatchesRequest:
    return pb.ListPatchesRequest(
        families=call.families, banks=call.banks, offset=call.offset, limit=call.limit
    )


def _page(response: pb.ListPatchesResponse) -> PatchPage:
    return PatchPage(
        patches=tuple(map(_patch, response.patches)), total=response.total, offset=response.offset
    )


def _patch(patch: pb.Patch) -> PatchInfo:
    return read(PatchInfo, _of(patch))


def _file(file: pb.File) -> PatchFile:
    return PatchFile(filename=wire.bare_name(file.filename), media_type=file.media_type, data=file.data)


def _info(info: pb.ServerInfo) -> ServerInfo:
    return read(ServerInfo, _of(info), map=read(MapLimits, _of(info.map)))


def _of(message: Any) -> Told:
    """The fields of a message by name; None for one that may be left out and is."""
    known = message.DESCRIPTOR.fields_by_name

    def told(name: str) -> Any:
        if known[name].has_presence and not message.HasField(name):
            return None
        return getattr(message, name)

    return told


_METHODS: dict[type[Call[Any]], Method] = {
    calls.Search: Method("Search", _search, _found),
    calls.Locate: Method(
        "Locate",
        lambda call: pb.LocateRequest(audio=call.recording, options=pb.LocateOptions(refine=call.refine)),
        _location,
    ),
    calls.Synthesize: Method("Synthesize", _note, lambda response: wire.note(response.wav)),
    calls.ExportInstrument: Method(
        "ExportInstrument",
        lambda call: pb.ExportInstrumentRequest(x=call.x, y=call.y, seconds=call.seconds),
        _archive,
        stream=True,
    ),
    calls.ListPatches: Method("ListPatches", _listing, _page),
    calls.GetPatch: Method("GetPatch", lambda call: pb.GetPatchRequest(patch_id=call.patch_id), _patch),
    calls.GetPatchFile: Method(
        "GetPatchFile", lambda call: pb.GetPatchFileRequest(patch_id=call.patch_id), _file
    ),
    calls.GetPreview: Method(
        "GetPatchPreview",
        lambda call: pb.GetPatchPreviewRequest(patch_id=call.patch_id),
        lambda file: bytes(file.data),
    ),
    calls.GetInfo: Method("GetServerInfo", lambda _: pb.GetServerInfoRequest(), _info),
}
