"""What a search is asked with: recordings, a patch of the library, or vectors; each becomes one question.

recordings ─► each: F0 ─► gate, timbre encoder ─► median pitch, mean of the unit vectors ─┐
patch ─► its render nearest to a pitch ─► the vectors the library holds ──────────────────┼─► Question
vectors, as ``timbrel embed`` gives them ─────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from timbrel.audio import Audio
from timbrel.engine.arguments import MAX_RECORDINGS
from timbrel.engine.index import Index
from timbrel.engine.results import Query
from timbrel.errors import InputError
from timbrel.library.bundle import Bundle
from timbrel.pitch import gate as gates
from timbrel.pitch.gate import Decision, GateDecision, Mode
from timbrel.pitch.scale import midi_to_hz


@dataclass(frozen=True, slots=True)
class Like:
    """A patch of the library: which others sound like it? It is not among its own hits."""

    patch_id: str


@dataclass(frozen=True, slots=True)
class Vectors:
    """Stage-1 vector [d1] and stage-2 vector [d2] of this bundle's encoder, of any length but 0."""

    stage1: np.ndarray
    stage2: np.ndarray


Asked: TypeAlias = Audio | Sequence[Audio] | Like | Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``query`` tells what was understood. ``stage1`` float32 [d1] and ``stage2`` float32 [d2] are of length 1,
    both None where nothing sounds. ``leave_out`` is a patch that must not be among the hits.
    """

    query: Query
    stage1: np.ndarray | None
    stage2: np.ndarray | None
    leave_out: str | None = None


def of_recordings(
    recordings: Sequence[Audio],
    judge: Callable[[Audio], tuple[Query, bool]],
    embed: Callable[[Audio], tuple[np.ndarray, np.ndarray]],
    *,
    mode: Mode,
    window: int,
) -> Question:
    """One to eight recordings of one sound: the mean of their vectors, at the pitch on which they agree.

    ``judge`` gives what was heard and whether it sounds; a recording that does not is left out.
    Raises InputError for another number of them, and UnsuitableQuery where ``mode`` requires a pitch.
    """
    if not 1 <= len(recordings) <= MAX_RECORDINGS:
        raise InputError(f"a search takes 1 to {MAX_RECORDINGS} recordings, not {len(recordings)}")
    judged = [judge(recording) for recording in recordings]
    query = _together([query for query, _ in judged], window)
    if mode is Mode.REQUIRE:
        gates.require(query.gate)
    heard = [embed(recording) for recording, (_, sounds) in zip(recordings, judged, strict=True) if sounds]
    if not heard:
        return Question(query=query, stage1=None, stage2=None)
    stage1, stage2 = (unit(np.mean(vectors, axis=0)) for vectors in zip(*heard, strict=True))
    return Question(query=query, stage1=stage1, stage2=stage2)


def of_patch(bundle: Bundle, index: Index, like: Like, *, mode: Mode, pitch: float | None) -> Question:
    """A patch by its render nearest to ``pitch`` (MIDI), else to the middle of the pitches it sounds at.

    Raises NotFound for a patch that is not there, and UnsuitableQuery where ``mode`` requires a pitch and the
    patch has none.
    """
    patch = bundle.patch(like.patch_id)
    renders = [bundle.renders[row] for row in bundle.rows_of(patch.patch_id)]
    pitched = [render for render in renders if np.isfinite(render.f0_midi)]
    # Without any pitch the keys are all there is to go by.
    heights = [render.f0_midi if pitched else float(render.key) for render in pitched or renders]
    aim = float(np.median(heights)) if pitch is None else pitch
    chosen = (pitched or renders)[int(np.argmin(np.abs(np.array(heights) - aim)))]
    midi = chosen.f0_midi if pitched else None
    confidence = chosen.f0_confidence if pitched else 0.0
    if mode is Mode.OFF:
        gate = gates.opened(confidence)
    elif midi is None:
        gate = GateDecision(Decision.UNPITCHED, f"no render of {patch.name} has a clear pitch", None, 0.0)
    else:
        where = "the middle of its pitches" if pitch is None else f"MIDI {pitch:.1f}"
        reason = f"MIDI {midi:.1f}, the render of {patch.name} nearest to {where}"
        gate = GateDecision(Decision.PITCHED, reason, midi, confidence)
    if mode is Mode.REQUIRE:
        gates.require(gate)
    return Question(
        query=_query(midi, confidence, gate),
        stage1=unit(index.vectors(np.array([chosen.row]))[0]),
        stage2=unit(bundle.stage2[chosen.row].astype(np.float32)),
        leave_out=patch.patch_id,
    )


def of_vectors(
    bundle: Bundle, vectors: Vectors, *, mode: Mode, pitch: float | None, lowest: float, highest: float
) -> Question:
    """Vectors have no pitch of their own: near ``pitch`` (MIDI) if it is named, else at all pitches.

    Raises InputError for vectors of another size or without a length, and UnsuitableQuery where ``mode``
    requires a pitch and none is named.
    """
    sizes = {"stage1": bundle.index.dimension, "stage2": bundle.stage2.shape[1]}
    checked = {name: _vector(name, getattr(vectors, name), size) for name, size in sizes.items()}
    if mode is Mode.OFF:
        gate = gates.opened(0.0)
    elif pitch is None:
        gate = GateDecision(Decision.UNPITCHED, "vectors do not tell a pitch", None, 0.0)
    else:
        gate = gates.held(pitch, lowest=lowest, highest=highest)
    if mode is Mode.REQUIRE:
        gates.require(gate)
    return Question(query=_query(None, 0.0, gate), stage1=checked["stage1"], stage2=checked["stage2"])


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1, float32."""
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _vector(name: str, values: np.ndarray, size: int) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (size,):
        raise InputError(
            f"{name} has shape {list(vector.shape)}; this bundle's encoder gives [{size}]: make the vectors "
            "anew with `timbrel embed`"
        )
    if not np.isfinite(vector).all() or not np.linalg.norm(vector) > 0:
        raise InputError(f"{name} is no direction: every value must be finite, and one of them other than 0")
    return unit(vector)


def _together(queries: Sequence[Query], window: int) -> Query:
    """What was heard in all of them: the median pitch, where they agree on one."""
    if len(queries) == 1:
        return queries[0]
    gate = gates.combine([query.gate for query in queries], window=window)
    heard = [query for query in queries if query.gate.has_sound] or list(queries)
    confidence = min(query.confidence for query in heard)
    pitches = [query.midi for query in heard if query.midi is not None]
    median = float(np.median(pitches)) if len(pitches) == len(heard) else None
    if median is not None and max(abs(pitch - median) for pitch in pitches) > window:
        median = None
    return _query(median, confidence, gate)


def _query(midi: float | None, confidence: float, gate: GateDecision) -> Query:
    f0_hz = None if midi is None else float(midi_to_hz(midi))
    return Query(f0_hz=f0_hz, midi=midi, confidence=confidence, gate=gate)
