"""What each operation does on one of the service's threads, the same whichever way the request came.

Requests are checked by then (``timbrel.serving.schemas``); recordings are decoded here, so that decoding takes a
thread's place, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from timbrel.audio import Audio, Limits, read_all
from timbrel.engine import sfz
from timbrel.engine.asking import Asked, Like, Vectors
from timbrel.engine.engine import Engine
from timbrel.engine.results import Location, SearchResult
from timbrel.serving import decoding, metrics, note_check, tracing
from timbrel.serving.schemas import InstrumentRequest, LocateOptions, SearchRequest, SynthesizeRequest


def search(
    engine: Engine, recordings: Sequence[bytes | Path], request: SearchRequest, limits: Limits
) -> SearchResult:
    """By the recordings, unless the request names a patch or holds vectors."""
    result = engine.search(
        _asked(recordings, request, limits),
        k=request.k,
        offset=request.offset,
        gate=request.gate,
        pitch=request.pitch,
        octaves=request.octaves,
        families=request.family,
        banks=request.bank,
        min_confidence=request.min_confidence,
        fold=request.fold,
    )
    decision = result.query.gate.decision
    metrics.gate_decided(decision)
    tracing.note(gate_decision=decision.value, hits=len(result.hits), total=result.total)
    return result


def locate(engine: Engine, recording: bytes | Path, options: LocateOptions, limits: Limits) -> Location:
    with tracing.part("read", {}):
        audio = decoding.read(recording, limits=limits)
    location = engine.locate(audio, refine=options.refine)
    tracing.note(gate_decision=location.query.gate.decision.value)
    return location


def synthesize(engine: Engine, request: SynthesizeRequest) -> Audio:
    note = engine.synthesize(
        x=request.x, y=request.y, pitch=request.pitch, velocity=request.velocity, seconds=request.seconds
    )
    note_check.shared.offer(note, request.pitch)
    return note


def instrument(engine: Engine, request: InstrumentRequest) -> tuple[str, bytes]:
    """The instrument's name and its zip file."""
    made = engine.instrument(x=request.x, y=request.y, seconds=request.seconds)
    for key, note in made.notes:
        note_check.shared.offer(note, key)
    name = sfz.instrument_name(made)
    return name, sfz.zipped(sfz.instrument_files(made, engine.bundle.manifest), name)


def _asked(recordings: Sequence[bytes | Path], request: SearchRequest, limits: Limits) -> Asked:
    """What a request searches with."""
    if request.like is not None:
        return Like(request.like)
    if request.stage1 is not None and request.stage2 is not None:
        return Vectors(np.array(request.stage1), np.array(request.stage2))
    with tracing.part("read", {"timbrel.recordings": len(recordings)}):
        return read_all(recordings, limits=limits, by=decoding.read)
