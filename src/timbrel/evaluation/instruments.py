"""Instrument retrieval: of which instrument is this note? (Le Vaillant and Molle 2025, in its form for one instrument.)

    reference   every instrument stands in the list once, with one note: of its median pitch, at velocity 100
    queries     all its other notes, of any pitch and velocity
    gated       as the search does it: every instrument stands there with its notes near the query's pitch, at velocity
                100, and counts as far away as the nearest of them; the query itself is left out

The first asks whether vectors follow the instrument or the pitch, the second what the gate is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Metric = Literal["cosine", "l2"]
REFERENCE_VELOCITY = 100
AT = (1, 5)


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
    known = references(labels)
    queries = np.setdiff1d(np.arange(len(vectors)), known)
    if window is not None:
        known = np.flatnonzero(labels.velocity == REFERENCE_VELOCITY)
    gallery, owner = vectors[known], labels.instrument[known]
    lengths = np.square(gallery).sum(axis=1)
    ranks = np.full(len(queries), np.inf)
    for place, row in enumerate(queries):
        # The query's own length moves all distances alike.
        distance = lengths - 2.0 * (gallery @ vectors[row])
        allowed = known != row
        if window is not None:
            allowed &= np.abs(labels.pitch[known] - labels.pitch[row]) <= window
        own = allowed & (owner == labels.instrument[row])
        if own.any():
            nearer = allowed & ~own & (distance <= distance[own].min())
            ranks[place] = 1 + len(np.unique(owner[nearer]))
    return {f"top{k}": float(np.mean(ranks <= k)) for k in at} | {"queries": float(len(queries))}
