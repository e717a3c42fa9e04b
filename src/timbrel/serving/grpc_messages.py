"""Between the messages of ``timbrel.v1`` and what the service works with.

Requests become the models that check HTTP's, so that both ways have the same limits, defaults and complaints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from timbrel.engine import catalogue
from timbrel.engine.results import Hit, Location, PatchInfo, Query, SearchResult
from timbrel.errors import InputError
from timbrel.library.bundle import Bundle
from timbrel.serving.requests import check
from timbrel.serving.schemas import InstrumentRequest, LocateOptions, SearchRequest, SynthesizeRequest
from timbrel.settings import Settings
from timbrel.v1 import timbrel_pb2 as pb

PART_BYTES = 256 * 1024
"""How much of a file or a note is in one message."""
# No bundle's vectors are nearly as long; longer ones are not even looked at.
_LONGEST_VECTOR = 65_536
_HTTP_NAMES = {"families": "family", "banks": "bank"}


def search_options(options: pb.SearchOptions) -> SearchRequest:
    """Raises InputError that names every field that is wrong."""
    return check(SearchRequest, _search_values(options))


def search_request(request: pb.SearchRequest) -> SearchRequest:
    """Raises InputError that names every field that is wrong, or says that there is nothing to search with."""
    values = _search_values(request.options)
    match request.WhichOneof("query"):
        case "like":
            values["like"] = request.like
        case "vectors":
            for name in ("stage1", "stage2"):
                vector = getattr(request.vectors, name)
                if not 0 < len(vector) <= _LONGEST_VECTOR:
                    raise InputError(f"{name} holds {len(vector)} numbers: send what `timbrel embed` gives")
                values[name] = list(vector)
        case None:
            raise InputError("there is nothing to search with: set recordings, like or vectors")
    return check(SearchRequest, values)


def _search_values(options: pb.SearchOptions) -> dict[str, Any]:
    values = {_HTTP_NAMES.get(name, name): value for name, value in _given(options).items()}
    if "gate" in values:
        known = {number: name.removeprefix("GATE_").lower() for name, number in pb.Gate.items()}
        values["gate"] = known.get(values["gate"], values["gate"])
    return values


def locate_options(options: pb.LocateOptions) -> LocateOptions:
    return check(LocateOptions, _given(options))


def synthesize_request(request: pb.SynthesizeRequest) -> SynthesizeRequest:
    """Raises InputError that names every field that is wrong."""
    return check(SynthesizeRequest, {"x": request.x, "y": request.y, **_given(request)})


def instrument_request(request: pb.ExportInstrumentRequest) -> InstrumentRequest:
    """Raises InputError that names every field that is wrong."""
    return check(InstrumentRequest, {"x": request.x, "y": request.y, **_given(request)})


def _given(message: Any) -> dict[str, Any]:
    """The fields that are set, by name."""
    return {
        field.name: value if isinstance(value, str | bytes | int | float) else list(value)
        for field, value in message.ListFields()
    }


def search_response(result: SearchResult) -> pb.SearchResponse:
    return pb.SearchResponse(
        query=_query(result.query), total=result.total, offset=result.offset, hits=map(_hit, result.hits)
    )


def locate_response(location: Location) -> pb.LocateResponse:
    nearest = [pb.Neighbour(**asdict(each)) for each in location.nearest]
    return pb.LocateResponse(x=location.x, y=location.y, query=_query(location.query), nearest=nearest)


def _query(query: Query) -> pb.Query:
    return pb.Query(
        f0_hz=query.f0_hz,
        midi=query.midi,
        confidence=_share(query.confidence),
        gate=pb.GateDecision(
            decision=query.gate.decision.value,
            reason=query.gate.reason,
            midi=query.gate.midi,
            confidence=_share(query.gate.confidence),
        ),
    )


def _hit(hit: Hit) -> pb.Hit:
    return pb.Hit(**asdict(hit))


def pcm_parts(samples: bytes, sample_rate: int) -> Iterator[pb.PcmPart]:
    """16-bit mono samples in parts, the first of which says what they are."""
    for start in range(0, len(samples), PART_BYTES):
        part = pb.PcmPart(data=samples[start : start + PART_BYTES])
        if start == 0:
            part.sample_rate, part.total_samples = sample_rate, len(samples) // 2
        yield part


def file_parts(data: bytes, *, filename: str, media_type: str) -> Iterator[pb.FilePart]:
    """A file in parts, the first of which says what it is."""
    for start in range(0, len(data), PART_BYTES):
        part = pb.FilePart(data=data[start : start + PART_BYTES])
        if start == 0:
            part.filename, part.media_type, part.total_bytes = filename, media_type, len(data)
        yield part


def patch(found: PatchInfo) -> pb.Patch:
    return pb.Patch(**asdict(found))


def server_info(bundle: Bundle, settings: Settings, engine: str) -> pb.ServerInfo:
    """``engine`` is "triton" or "inprocess"."""
    info = asdict(catalogue.info(bundle, settings.limits))
    return pb.ServerInfo(**info, engine=engine, deadline_seconds=settings.deadline_seconds)


def _share(value: float) -> float:
    """Within 0-1, whatever was rounded on the way."""
    return min(max(value, 0.0), 1.0)
