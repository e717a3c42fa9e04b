"""Recall: does a note find another note of its instrument?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def recall(
    queries: np.ndarray,
    gallery: np.ndarray,
    *,
    labels: np.ndarray,
    pitches: np.ndarray,
    asked: np.ndarray,
    at: Sequence[int] = (1, 10),
) -> dict[int, float]:
    """Share of the queries whose instrument is among the ``k`` nearest, for each ``k`` of ``at``.

    ``gallery`` ``[n, d]``: one vector per note, with its instrument in ``labels`` ``[n]`` and its pitch (MIDI) in
    ``pitches`` ``[n]``. ``queries`` ``[q, d]``: disturbed versions of the notes in rows ``asked`` ``[q]``. Each
    instrument stands in the list once, with its note nearest to the query's pitch, the query's own note left out.
    That is harder than a search: the right answer is another pitch, while wrong ones may be at the query's own, so
    vectors that follow the pitch find nothing. Distance is one minus the cosine; ties count against the query.
    """
    queries, gallery = _unit(queries), _unit(gallery)
    _, instrument = np.unique(labels, return_inverse=True)
    ranks = np.full(len(asked), np.inf)  # a patch that has no other note is never found
    for i, row in enumerate(asked):
        away = np.abs(pitches - pitches[row]).astype(np.float64)
        away[row] = np.inf
        order = np.lexsort((np.arange(len(away)), away, instrument))
        order = order[np.isfinite(away[order])]
        _, first = np.unique(instrument[order], return_index=True)
        nearest = order[first]
        own = np.flatnonzero(instrument[nearest] == instrument[row])
        if own.size:
            similarity = gallery[nearest] @ queries[i]
            ranks[i] = int(np.sum(similarity >= similarity[own[0]]))
    return {k: float(np.mean(ranks <= k)) for k in at}


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
