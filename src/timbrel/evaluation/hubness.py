"""Does every sound of the library stand in somebody's list, and none in everybody's?

Each render searches the library it is in: among all renders of other patches that the gate leaves at its own pitch, by
stage 2. How often a render is one of the ten hits (each patch once, by its best render) is its k-occurrence, N_10
(Radovanovic, Nanopoulos and Ivanovic 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from timbrel.library.bundle import Bundle
from timbrel.library.coverage import Coverage
from timbrel.library.styles import exact_distances
from timbrel.library.two_stage import blended

HITS = 10
Progress = Callable[[str, int, int], None]


def measure(bundle: Bundle, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """``figures`` of renders and of patches: by ``cosine``, and as the ``search`` orders (equal without scales)."""
    count, patch_of = len(bundle.renders), bundle.patch_of
    coverage = Coverage(bundle.renders, patch_of)
    least = bundle.manifest.search.window_semitones
    occurrences = {way: np.zeros(count, dtype=np.int64) for way in ("cosine", "search")}
    for render in bundle.renders:
        midi = None if math.isnan(render.f0_midi) else render.f0_midi
        window = 0 if midi is None else coverage.window(midi, least=least, patches=HITS)
        rows = bundle.index.ids_within(midi, window)
        rows = rows[patch_of[rows] != patch_of[render.row]]
        own = bundle.stage2[render.row].astype(np.float32)
        first = 1.0 - bundle.index.vectors(rows) @ bundle.index.vectors(np.array([render.row]))[0]
        scaled = blended(first, bundle.styles.distances(own, rows), bundle.manifest.search.stage1_share)
        if bundle.scales is not None:
            scaled = scaled / bundle.scales[rows]
        for way, order in (("cosine", exact_distances(own, bundle.stage2, rows)), ("search", scaled)):
            occurrences[way][rows[hits(order, patch_of[rows])]] += 1
        progress("renders", render.row + 1, count)
    return {
        "bundle": bundle.id,
        "hits": HITS,
        **{
            way: {
                "renders": figures(found),
                "patches": figures(np.bincount(patch_of, weights=found, minlength=len(bundle.patches))),
            }
            for way, found in occurrences.items()
        },
    }


def hits(order: np.ndarray, labels: np.ndarray, count: int = HITS) -> np.ndarray:
    """The entries that are shown: of each label the one least in ``order`` [n], the best ``count`` of them."""
    ranked = np.argsort(order, kind="stable")
    _, first = np.unique(labels[ranked], return_index=True)
    shown: np.ndarray = ranked[np.sort(first)[:count]]
    return shown


def figures(occurrences: np.ndarray) -> Mapping[str, float]:
    """Of k-occurrences [n]: the share that is in no list (``orphans``), skewness (the third standardised moment; 0
    where all are equal), and the largest.
    """
    away = occurrences - occurrences.mean()
    deviation = math.sqrt(float(np.mean(away**2)))
    return {
        "orphans": float(np.mean(occurrences == 0)),
        "skewness": float(np.mean((away / deviation) ** 3)) if deviation > 0 else 0.0,
        "largest": float(occurrences.max()),
    }
