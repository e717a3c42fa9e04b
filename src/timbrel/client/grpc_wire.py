"""Calls as messages of ``timbrel.v1``, and answers from them: what is said, without a channel to say it over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

from timbrel.client import calls, wire
from timbrel.client.calls import Call
from timbrel.client.patience import Patience, Refused, retry_after
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
from timbrel.errors import (
    AudioTooLarge,
    DeadlineExceeded,
    ProtocolError,
    TimbrelError,
    TooManyRequests,
    Unavailable,
    Unreachable,
    error_of,
)
from timbrel.pitch.gate import Decision, GateDecision
from timbrel.v1 import timbrel_pb2 as pb

CODE = "timbrel-code"
"""Trailing metadata of an error: its stable code."""

# What HTTP's Retry-After says; gRPC has no such field.
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
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ProtocolError(
            f"the answer cannot be read ({type(error).__name__}: {error}): is the service another version?"
        ) from error


def error(
    address: str, patience: Patience, status: grpc.StatusCode, details: str, trailing: Sequence[Any]
) -> TimbrelError | Refused:
    """What the end of a call with an error stands for; Refused where it may be made again."""
    code = next((value for key, value in trailing if key == CODE), None)
    if isinstance(code, str):
        told = error_of(code, details, _STATUSES.get(status, 500))
        seconds = retry_after({key: value for key, value in trailing if isinstance(value, str)})
        if isinstance(told, TooManyRequests) and seconds is not None:
            told.retry_after = int(seconds)
        if seconds is None and status is grpc.StatusCode.UNAVAILABLE:
            seconds = _AGAIN_SECONDS
        return told if seconds is None else Refused(told, seconds)
    told_shortly = " ".join(details.split())[:300]
    match status:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                DeadlineExceeded(f"no answer from {address} in time: ask for less, or allow a longer timeout")
                if patience.left > 0
                else patience.over()
            )
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Refused(
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
    return SearchResult(
        query=_query(response.query),
        hits=tuple(
            Hit(
                patch_id=hit.patch_id,
                name=hit.name,
                family=hit.family,
                bank=hit.bank,
                pitch=_optional(hit, "pitch"),
                stage1_distance=hit.stage1_distance,
                stage2_distance=hit.stage2_distance,
                distance=hit.distance,
                x=hit.x,
                y=hit.y,
                also=tuple(hit.also),
            )
            for hit in response.hits
        ),
        total=response.total,
        offset=response.offset,
    )


def _query(query: pb.Query) -> Query:
    gate = query.gate
    return Query(
        f0_hz=_optional(query, "f0_hz"),
        midi=_optional(query, "midi"),
        confidence=query.confidence,
        gate=GateDecision(Decision(gate.decision), gate.reason, _optional(gate, "midi"), gate.confidence),
    )


def _location(response: pb.LocateResponse) -> Location:
    return Location(
        x=response.x,
        y=response.y,
        query=_query(response.query),
        nearest=tuple(
            Neighbour(
                patch_id=each.patch_id,
                name=each.name,
                family=each.family,
                bank=each.bank,
                x=each.x,
                y=each.y,
                distance=each.distance,
            )
            for each in response.nearest
        ),
    )


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
    return PatchInfo(
        patch_id=patch.patch_id,
        name=patch.name,
        family=patch.family,
        bank=patch.bank,
        engine=patch.engine,
        x=patch.x,
        y=patch.y,
        pitches=tuple(patch.pitches),
    )


def _file(file: pb.File) -> PatchFile:
    return PatchFile(filename=wire.bare_name(file.filename), media_type=file.media_type, data=file.data)


def _info(info: pb.ServerInfo) -> ServerInfo:
    return ServerInfo(
        version=info.version,
        bundle_id=info.bundle_id,
        bundle_revision=info.bundle_revision,
        patches=info.patch_count,
        renders=info.render_count,
        families=tuple(info.families),
        banks=tuple(info.banks),
        map=MapLimits(
            radius=info.map.radius,
            pitch_low=info.map.pitch_low,
            pitch_high=info.map.pitch_high,
            velocity_low=info.map.velocity_low,
            velocity_high=info.map.velocity_high,
        ),
        stage1_dimension=info.stage1_size,
        stage2_dimension=info.stage2_size,
        max_upload_bytes=info.max_upload_bytes,
        max_seconds=info.max_recording_seconds,
    )


def _optional(message: Any, name: str) -> float | None:
    return getattr(message, name) if message.HasField(name) else None


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
