"""Two-stage search: cheap candidates from the index, then the exact order by style.

    stage-1 vector ─► index (pitch ± window) ─► candidates ─► stage-2 cosine ─► blended with stage 1's ─► ÷ scale ─►
                                                                                          best render of each patch

Stage 1 finds notes of one instrument, however it was recorded: the right renders must be among its few hundred
candidates. Stage 2 compares their styles (``styles``), and the order is by both (``blended``). That is measured by how
near each render's own neighbours are (``hubness``), where the library has such scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timbrel.errors import InputError
from timbrel.library.index import Found
from timbrel.library.styles import Styles

# Distances below it are those of equal sounds: how small they are must not decide.
_NEAR = np.float32(1e-3)


@dataclass(frozen=True, slots=True)
class Match:
    """The best render of one patch. Distances of stages are 1 − cosine: 0 equal, 1 unrelated, 2 opposite.

    ``distance`` is what orders: both together (``blended``), over the render's scale.
    """

    row: int
    stage1_distance: float
    stage2_distance: float
    distance: float


def order(
    found: Found,
    *,
    query: np.ndarray,
    stage2: Styles,
    patch_of: np.ndarray,
    k: int,
    stage1_share: float = 0.0,
    scales: np.ndarray | None = None,
) -> tuple[Match, ...]:
    """Order candidates by both stages and keep the best render of each patch, ``k`` patches at most.

    Args:
        found: candidates of stage 1; their ids are rows of ``stage2`` and of ``patch_of``.
        query: stage-2 vector of the query, float32 [d2], l2-normalised.
        stage2: those of all renders.
        patch_of: number of each render's patch, int [renders].
        stage1_share: what stage 1 is worth in the order, of 1 in all (``blended``).
        scales: what each render's distances are divided by, float32 [renders]; None: by nothing.

    Ties go to the smaller stage-1 distance, then to the smaller row, so equal queries give equal answers.

    Raises:
        InputError: ``query`` does not have the library's dimension, or is not finite.
    """
    if query.shape != (stage2.dimension,):
        raise InputError(
            f"the stage-2 query has shape {list(query.shape)}; the library's is {stage2.dimension}"
        )
    if not np.isfinite(query).all():
        raise InputError("the stage-2 query holds values that are not finite")
    if len(found.ids) == 0:
        return ()
    distances = stage2.distances(query, found.ids)
    scaled = blended(found.distances, distances, stage1_share)
    if scales is not None:
        scaled = scaled / scales[found.ids]
    ranked = np.lexsort((found.ids, found.distances, scaled))
    return tuple(
        Match(int(found.ids[i]), float(found.distances[i]), float(distances[i]), float(scaled[i]))
        for i in ranked[_first_of_each(patch_of[found.ids[ranked]])][:k]
    )


def blended(stage1: np.ndarray, stage2: np.ndarray, share: float) -> np.ndarray:
    """What the search orders by, but for scales: of both distances the geometric mean with weights ``share`` and
    1 - ``share``.

    So that one of them is halved counts alike wherever it stands, and neither has a unit that could outweigh the
    other. (A weighted sum finds fewer: reports/retrieval.json, ``stages``, is of this mean; of 1,050 disturbed notes
    of patches that the weights were chosen on, 1,037 against 1,034 behind the gate by stage 1 alone or the best sum.)
    """
    if share == 0.0:
        return stage2
    first, second = np.float32(share), np.float32(1.0 - share)
    mean = (stage1 + _NEAR) ** first * (stage2 + _NEAR) ** second - _NEAR
    blend: np.ndarray = np.maximum(mean, np.float32(0))
    return blend


def _first_of_each(labels: np.ndarray) -> np.ndarray:
    """The positions at which each label appears for the first time, in order."""
    _, first = np.unique(labels, return_index=True)
    return np.sort(first)
