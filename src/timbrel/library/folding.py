"""Near-duplicates: which patches are one sound, so that a search shows them as one hit.

Two patches are one sound when their payloads are equal; or when, at every pitch at which both were rendered (to
half a semitone, at the same velocity), the stage-2 vectors of these renders are no further apart than a given
distance. They must share at least half the renders of the patch that has fewer: two voices that meet at one pitch
only are two voices.

Groups follow the leader rule: patches are taken in the order of the library; each joins the nearest former leader
within the distance, or becomes a leader. So every member is as near to its leader as the distance says, equal
libraries give equal groups, and a row of patches, each close to the next, does not become one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from timbrel.library.index import PitchIndex
from timbrel.library.tables import Patch, Render

# Renders that stage 1 proposes for each render. More copies of one sound than these still fold: each finds
# others, and through them their leader.
NEIGHBOURS = 16
BATCH = 4096
PITCH_TOLERANCE = 0.5
LEAST_SHARED = 0.5


class SameSound:
    """How far two patches are apart at the pitches that both sound at."""

    def __init__(self, renders: Sequence[Render], patch_of: np.ndarray, stage2: np.ndarray) -> None:
        """``patch_of`` int [renders] numbers the patches from 0; ``stage2`` [renders, d2], l2-normalised."""
        self._stage2 = stage2
        self._pitch = np.array([r.f0_midi for r in renders], dtype=np.float64)
        # Renders without a pitch are paired by the key that was pressed, and only with one another.
        bare = np.isnan(self._pitch)
        self._pitch[bare] = [1000.0 + r.key for r in renders if math.isnan(r.f0_midi)]
        self._velocity = np.array([r.velocity for r in renders])
        order = np.argsort(patch_of, kind="stable")
        self.rows = np.split(order, np.cumsum(np.bincount(patch_of))[:-1])
        """The renders of each patch."""

    def distance(self, first: int, second: int) -> float:
        """The largest stage-2 distance (1 − cosine) of renders at one pitch; infinite when too few are shared."""
        ours, theirs = self.rows[first], self.rows[second]
        gap = np.abs(self._pitch[ours][:, None] - self._pitch[theirs])
        gap[self._velocity[ours][:, None] != self._velocity[theirs]] = math.inf
        pairs = [
            (our, their) for our, their in enumerate(gap.argmin(axis=1)) if gap[our, their] <= PITCH_TOLERANCE
        ]
        if len(pairs) < LEAST_SHARED * min(len(ours), len(theirs)):
            return math.inf
        left, right = (np.array(side) for side in zip(*pairs, strict=True))
        return float(apart(self._stage2[ours[left]], self._stage2[theirs[right]]).max())


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 − cosine of each row of ``first`` and of ``second`` ([n, d] or [d]), float32 [n]."""
    products = np.sum(first.astype(np.float32) * second.astype(np.float32), axis=-1)
    return np.maximum(1 - products, np.float32(0))


def leaders(
    patches: Sequence[Patch],
    renders: Sequence[Render],
    *,
    patch_of: np.ndarray,
    index: PitchIndex,
    stage2: np.ndarray,
    distance: float,
) -> np.ndarray:
    """The number of each patch's leader, int32 [patches]; a patch that is like no former one leads itself.

    Args:
        patch_of: number of each render's patch, int [renders].
        index: stage 1 of the renders, which proposes what is compared: not every pair is.
        stage2: [renders, d2], l2-normalised.
        distance: the largest stage-2 distance of two renders of one sound; 0 leaves only equal payloads and
            equal vectors.
    """
    same = SameSound(renders, patch_of, stage2)
    result = np.arange(len(patches), dtype=np.int32)
    by_payload: dict[str, int] = {}
    near: list[set[int]] = [set() for _ in patches]
    for start in range(0, len(renders), BATCH):
        rows = np.arange(start, min(start + BATCH, len(renders)))
        # A pitch at the border of two semitones may be filed under either: a window of one.
        answers = index.query_batch(
            index.vectors(rows),
            pitches=np.array([renders[row].f0_midi for row in rows]),
            window=1,
            k=NEIGHBOURS,
        )
        for row, found in zip(rows, answers, strict=True):
            close = found.ids[apart(stage2[found.ids], stage2[row]) <= distance]
            number = int(patch_of[row])
            for other in patch_of[close].tolist():
                near[max(number, other)].add(min(number, other))
    for number, patch in enumerate(patches):
        twin = by_payload.setdefault(patch.sha256, number)
        if twin != number:
            result[number] = result[twin]
            continue
        candidates = sorted({int(result[other]) for other in near[number] if other != number})
        distances = [same.distance(leader, number) for leader in candidates]
        if distances and min(distances) <= distance:
            result[number] = candidates[int(np.argmin(distances))]
    return result
