"""Instrument retrieval: of which instrument is this note? (Le Vaillant and Molle 2025, in its form for one instrument.)

    reference   every instrument stands in the list once, with one note: of its median pitch, at velocity 100
    queries     all its other notes, of any pitch and velocity
    gated       as the search does it: every instrument stands there with its notes near the query's pitch, at velocity
                100, and counts as far away as the nearest of them; the query itself is left out

The first asks whether vectors follow the instrument or the pitch, the second what the gate is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import soundfile
import soxr

from timbrel.encoders.frontend import clip
from timbrel.errors import DataError
from timbrel.evaluation.encoders import BUNDLED, SEARCH, EmbedAll
from timbrel.evaluation.stage_worth import compare, summary
from timbrel.library.hubness import scales_of
from timbrel.library.styles import whitened
from timbrel.library.two_stage import blended
from timbrel.notes.noteset import NOTE_SAMPLES, SAMPLE_RATE, NoteSet
from timbrel.notes.nsynth import Example, read_examples

Metric = Literal["cosine", "l2"]
METRICS: tuple[Metric, ...] = ("cosine", "l2")
Progress = Callable[[str, int, int], None]
BATCH = 32
REFERENCE_VELOCITY = 100
AT = (1, 5)
# Neighbouring keys sound a semitone apart, give or take their tuning.
HALF_SEMITONE = 0.5


@dataclass(frozen=True, slots=True)
class NoteLabels:
    """Of n notes: ``instrument`` (any numbers), ``pitch`` as sounding (MIDI), ``velocity`` (1-127); arrays [n]."""

    instrument: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray


def references(labels: NoteLabels) -> np.ndarray:
    """The row of each instrument's reference: of its notes at velocity 100 the one nearest to their median pitch.

    Of two as near, the lower. An instrument without a note at velocity 100 has none.
    """
    rows = []
    for each in np.unique(labels.instrument):
        own = np.flatnonzero((labels.instrument == each) & (labels.velocity == REFERENCE_VELOCITY))
        if len(own):
            away = np.abs(labels.pitch[own] - np.median(labels.pitch[own]))
            rows.append(own[np.lexsort((labels.pitch[own], away))[0]])
    return np.array(rows, dtype=np.int64)


def instrument_hits(
    vectors: np.ndarray,
    labels: NoteLabels,
    *,
    metric: Metric,
    window: float | None = None,
    at: Sequence[int] = AT,
) -> dict[str, float]:
    """``top1``, ``top5`` …: the share of queries whose instrument is among the nearest; ``queries``: how many.

    ``vectors`` [n, d]. ``window``: the gate, semitones to either side; None for references without a gate. A query
    whose own instrument has no note to be found by counts as a miss; ties count against it.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if metric == "cosine":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    lengths = np.square(vectors).sum(axis=1)
    # The query's own length moves all distances alike.
    return _hits(
        lambda row, known: lengths[known] - 2.0 * (vectors[known] @ vectors[row]), labels, window, at
    )


def search_hits(
    stage1: np.ndarray,
    stage2: np.ndarray,
    labels: NoteLabels,
    *,
    stage1_share: float,
    whitening: np.ndarray | None = None,
    window: float | None = None,
    at: Sequence[int] = AT,
) -> dict[str, float]:
    """``instrument_hits`` by the order of the search (``two_stage.blended``), of ``stage1`` [n, d1] and ``stage2``
    [n, d2], with the library's ``whitening`` (``styles``), but without its scales.
    """
    first, second = _unit(stage1), whitened(stage2, whitening)

    def distances(row: int, known: np.ndarray) -> np.ndarray:
        return blended(1.0 - first[known] @ first[row], 1.0 - second[known] @ second[row], stage1_share)

    return _hits(distances, labels, window, at)


def _hits(
    distances: Callable[[int, np.ndarray], np.ndarray],
    labels: NoteLabels,
    window: float | None,
    at: Sequence[int],
) -> dict[str, float]:
    """As ``instrument_hits``, by the ``distances`` from one row to others."""
    known = references(labels)
    queries = np.setdiff1d(np.arange(len(labels.instrument)), known)
    if window is not None:
        known = np.flatnonzero(labels.velocity == REFERENCE_VELOCITY)
    owner = labels.instrument[known]
    ranks = np.full(len(queries), np.inf)
    for place, row in enumerate(queries):
        distance = distances(int(row), known)
        allowed = known != row
        if window is not None:
            allowed &= np.abs(labels.pitch[known] - labels.pitch[row]) <= window + HALF_SEMITONE
        own = allowed & (owner == labels.instrument[row])
        if own.any():
            nearer = allowed & ~own & (distance <= distance[own].min())
            ranks[place] = 1 + len(np.unique(owner[nearer]))
    return {f"top{k}": float(np.mean(ranks <= k)) for k in at} | {"queries": float(len(queries))}


@dataclass(frozen=True, slots=True)
class LabelledNotes:
    """Notes to be told apart; ``audio(rows)`` gives float32 [n, samples] at 24 kHz."""

    labels: NoteLabels
    audio: Callable[[np.ndarray], np.ndarray]


def read_notes(folder: Path, progress: Progress = lambda what, done, total: None) -> LabelledNotes:
    """Held-out notes of a NoteSet (data/notes), or every note of an NSynth-layout folder's test part, else valid.

    Pitches are those measured in a NoteSet (the key's where none could be), those published in NSynth. Raises
    DataError when ``folder`` is neither.
    """
    if (folder / "notes.csv").is_file():
        notes = NoteSet.open(folder)
        rows = notes.select(split=("validation", "test"))
        chosen = [notes.notes[row] for row in rows]
        sounding = [note.f0_midi if math.isfinite(note.f0_midi) else float(note.pitch) for note in chosen]
        return LabelledNotes(_labels(chosen, sounding), lambda wanted: notes.float_audio(rows[wanted]))
    for part in ("test", "valid"):
        if examples := read_examples(folder, part):
            return _read_nsynth(examples, progress)
    raise DataError(
        f"{folder} holds neither notes.csv nor nsynth-test/examples.json: name data/notes or NSynth's"
    )


def _read_nsynth(examples: Sequence[Example], progress: Progress) -> LabelledNotes:
    samples = np.zeros((len(examples), NOTE_SAMPLES), dtype=np.float32)
    for i, example in enumerate(examples):
        sound, rate = soundfile.read(example.wav, dtype="float32")
        sound = soxr.resample(sound, rate, SAMPLE_RATE)[:NOTE_SAMPLES]
        samples[i, : len(sound)] = sound
        progress("reading", i + 1, len(examples))
    labels = _labels(examples, [float(example.pitch) for example in examples])
    return LabelledNotes(labels, lambda rows: samples[rows])


def embed_notes(
    notes: LabelledNotes, embed: EmbedAll, progress: Progress = lambda what, done, total: None
) -> dict[str, np.ndarray]:
    """The vectors [n, d] of all notes by every encoder."""
    count = len(notes.labels.instrument)
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(start + BATCH, count))
        clips = np.stack([clip(sound) for sound in notes.audio(rows)])
        for name, vectors in embed(clips).items():
            found.setdefault(name, []).append(vectors)
        progress("notes", int(rows[-1]) + 1, count)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def measure(
    vectors: Mapping[str, np.ndarray],
    labels: NoteLabels,
    *,
    window: float,
    stage1_share: float = 0.0,
    whitening: np.ndarray | None = None,
) -> dict[str, Any]:
    """Figures by encoder: ``reference`` and ``gated``, each by cosine and by l2, as ``instrument_hits`` has them; and
    by cosine those of the ``search``, with its ``stage1_share`` and ``whitening``.
    """
    ways = {"reference": None, "gated": window}
    stage1, stage2 = (vectors[name] for name in BUNDLED)
    figures: dict[str, Any] = {
        name: {
            way: {metric: instrument_hits(own, labels, metric=metric, window=gate) for metric in METRICS}
            for way, gate in ways.items()
        }
        for name, own in vectors.items()
    }
    figures[SEARCH] = {
        way: {
            "cosine": search_hits(
                stage1, stage2, labels, stage1_share=stage1_share, whitening=whitening, window=gate
            )
        }
        for way, gate in ways.items()
    }
    return figures


def stages(
    stage1: np.ndarray,
    stage2: np.ndarray,
    labels: NoteLabels,
    *,
    window: float,
    stage1_share: float = 0.0,
    whitening: np.ndarray | None = None,
) -> dict[str, Any]:
    """What stage 2 is worth behind the gate (``stage_worth.summary``), on the queries of ``instrument_hits``.

    ``stage1`` [n, d1], ``stage2`` [n, d2]; ``stage1_share`` and ``whitening`` as the search has them. The notes at
    velocity 100 are the library, and have its scales.
    """
    known = np.flatnonzero(labels.velocity == REFERENCE_VELOCITY)
    owner, pitch = labels.instrument[known], labels.pitch[known]
    first, second = _unit(stage1), whitened(stage2, whitening)

    def compared_with(row: int) -> np.ndarray:
        return np.flatnonzero((known != row) & (np.abs(pitch - labels.pitch[row]) <= window + HALF_SEMITONE))

    def neighbours(place: int) -> np.ndarray:
        others = compared_with(int(known[place]))
        others = others[owner[others] != owner[place]]
        return blended(
            1.0 - first[known[others]] @ first[known[place]],
            1.0 - second[known[others]] @ second[known[place]],
            stage1_share,
        )

    scales = scales_of(len(known), neighbours)
    found = []
    for row in np.setdiff1d(np.arange(len(stage1)), references(labels)):
        among = compared_with(int(row))
        found.append(
            compare(
                1.0 - first[known[among]] @ first[row],
                1.0 - second[known[among]] @ second[row],
                owner[among],
                int(labels.instrument[row]),
                stage1_share=stage1_share,
                scales=scales[among],
            )
        )
    return summary(found, {f"top{k}": k for k in AT})


def headline(figures: Mapping[str, Any]) -> dict[str, float]:
    """What one encoder's figures (of ``measure``) are quoted by: behind the gate, by cosine, as the search compares."""
    return dict(figures["gated"]["cosine"])


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


class _Labelled(Protocol):
    @property
    def instrument(self) -> str: ...

    @property
    def velocity(self) -> int: ...


def _labels(notes: Sequence[_Labelled], sounding: Sequence[float]) -> NoteLabels:
    _, instrument = np.unique([note.instrument for note in notes], return_inverse=True)
    return NoteLabels(instrument, np.array(sounding), np.array([note.velocity for note in notes]))
