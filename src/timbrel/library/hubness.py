"""Local scaling: no sound is everybody's neighbour, and none nobody's.

In many dimensions some vectors ("hubs") come out near to nearly everything, and others ("orphans") stand in no list of
ten at all (Radovanovic, Nanopoulos and Ivanovic 2010). A hub is a render whose own neighbours are close, so a distance
is measured by them: the order of a search follows

    d(query, render) / scale(render),    scale(render) = (mean distance of the render to its 20 nearest) ^ STRENGTH

With a strength of 1/2 this is the non-iterative contextual dissimilarity measure d(x, y) / sqrt(s(x) s(y)) of Jegou,
Harzallah and Schmid (2007), found the best of the simple ones by Schnitzer, Flexer, Schedl and Widmer (2012); the
query's own scale is left out, because it is the same for all of its candidates. A ratio, not a difference (as CSLS
takes, Conneau et al. 2018): so what equals the query stays first, wherever it lies.

A scale depends on the library alone: one number for each render, computed once, by way of the index, from those of
other patches that a query at the render's own pitch is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from timbrel.errors import BundleError
from timbrel.files import atomic_write
from timbrel.library.coverage import Coverage
from timbrel.library.index import PitchIndex
from timbrel.library.styles import Styles
from timbrel.library.tables import Render
from timbrel.library.two_stage import blended

FILE_NAME = "scales.npy"
NEIGHBOURS = 20
# Candidates of stage 1 among which stage 2 finds them (reports/retrieval.json, ``stages``: hardly one is missed).
PROPOSED = 5 * NEIGHBOURS
# At 1/2 orphans are fewer still, but here and there a note loses the first place that plain distance gave it.
STRENGTH = 0.25
# A heap of near-duplicates has hardly any distance to measure by: no scale is less than this part of the usual one.
LEAST = 0.5

Nearest = Callable[[int], np.ndarray]
"""Row of a render -> distances [any number] to renders of other patches that a query like it is compared with."""
Progress = Callable[[int, int], None]


def scales_of(count: int, nearest: Nearest, *, progress: Progress = lambda done, total: None) -> np.ndarray:
    """The scale of each of ``count`` renders, float32 [count], with median 1; 1 for a render without neighbours."""
    means = np.full(count, np.nan)
    for row in range(count):
        means[row] = mean_of_nearest(nearest(row))
        progress(row + 1, count)
    known = means[np.isfinite(means)]
    usual = float(np.median(known)) if known.size else 0.0
    if usual <= 0.0:
        return np.ones(count, dtype=np.float32)
    relative = (np.where(np.isfinite(means), means, usual) / usual) ** STRENGTH
    return np.maximum(relative, LEAST).astype(np.float32)


def library_scales(
    index: PitchIndex,
    renders: Sequence[Render],
    *,
    patch_of: np.ndarray,
    stage1: np.ndarray,
    stage2: Styles,
    window: int,
    stage1_share: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> np.ndarray:
    """The scales of a library, by searching it with each of its renders; float32 [renders].

    ``patch_of`` int [renders]; ``stage1`` float32 [renders, d1], l2-normalised; ``window`` is the least that searches
    have, ``stage1_share`` what stage 1 is worth in their order of 1 in all.
    """
    coverage = Coverage(renders, patch_of)

    def nearest(row: int) -> np.ndarray:
        pitch = renders[row].f0_midi
        midi = None if math.isnan(pitch) else pitch
        width = 0 if midi is None else coverage.window(midi, least=window, patches=NEIGHBOURS)
        found = index.query(stage1[row], pitch=midi, window=width, k=PROPOSED)
        others = patch_of[found.ids] != patch_of[row]
        distances = stage2.distances(stage2.vectors[row], found.ids[others])
        return blended(found.distances[others], distances, stage1_share)

    return scales_of(len(renders), nearest, progress=progress)


def mean_of_nearest(distances: np.ndarray) -> float:
    """Mean of the ``NEIGHBOURS`` least distances (all, where there are fewer); nan of none."""
    if not len(distances):
        return float("nan")
    k = min(NEIGHBOURS, len(distances))
    return float(np.partition(distances, k - 1)[:k].mean(dtype=np.float64))


def save_scales(folder: Path, scales: np.ndarray) -> None:
    """Write them beside the index in ``folder``."""
    with atomic_write(folder / FILE_NAME) as handle:
        np.save(handle, scales.astype(np.float32), allow_pickle=False)


def load_scales(folder: Path, count: int) -> np.ndarray | None:
    """What ``save_scales`` wrote for ``count`` renders; None where nothing is, and distances order as they are.

    Raises BundleError when the file is not that.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        scales: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); rebuild the index") from error
    if (
        scales.shape != (count,)
        or scales.dtype != np.float32
        or not (np.isfinite(scales) & (scales > 0)).all()
    ):
        raise BundleError(
            f"{path} does not hold one positive float32 for each of {count} renders; rebuild the index"
        )
    return scales
