"""Is a walk on the map smooth to the ear? Measured between neighbours, on decoded audio. numpy only.

A walk is a straight line of points from one instrument to a neighbour, the same pitch played at each. Steps are
log-spectral distances (LSD, dB) between the sounds of consecutive points:

    largest / mean step      1: every step changes the sound equally; the number of steps: one jump, nothing else
    path / distance          sum of the steps over the LSD between both ends; 1: straight, no detour through other
                             sounds (LSD is a mean of Euclidean distances, so it is never below 1)

Beside it stands what needs no map: the magnitudes of both end notes cross-faded linearly, the phase rebuilt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from timbrel.codec.spectrum import log_spectral_distance, to_decibels, to_magnitude


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One walk: its steps in dB, and the LSD between its ends."""

    steps_db: tuple[float, ...]
    distance_db: float

    @property
    def largest_over_mean(self) -> float:
        """nan when nothing changes."""
        mean = sum(self.steps_db) / len(self.steps_db)
        return max(self.steps_db) / mean if mean > 0 else math.nan

    @property
    def path_over_distance(self) -> float:
        """nan when both ends sound the same."""
        return sum(self.steps_db) / self.distance_db if self.distance_db > 0 else math.nan


def walk(spectra: Sequence[np.ndarray]) -> Walk:
    """``spectra``: log magnitudes [frames, bins] in dB of every point of the walk, ends included."""
    steps = [log_spectral_distance(one, other) for one, other in pairwise(spectra)]
    return Walk(steps_db=tuple(steps), distance_db=log_spectral_distance(spectra[0], spectra[-1]))


def crossfade(first: np.ndarray, last: np.ndarray, steps: int) -> list[np.ndarray]:
    """The log magnitudes between ``first`` and ``last`` [frames, bins], both included, when their magnitudes are
    mixed linearly: steps + 1 arrays.
    """
    low, high = to_magnitude(first), to_magnitude(last)
    return [to_decibels(low + np.float32(t) * (high - low)) for t in np.linspace(0.0, 1.0, steps + 1)]


def neighbour_pairs(points: np.ndarray, count: int, *, k: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` pairs (int [m, 2]) drawn without repetition from all in which one of ``points`` [n, d] is
    among the ``k`` nearest of the other.
    """
    distances = ((points[:, None, :] - points[None, :, :]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : min(k, len(points) - 1)]
    pairs = sorted({(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row})
    chosen = np.sort(rng.permutation(len(pairs))[:count])
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)[chosen]


def summary(walks: Sequence[Walk]) -> dict[str, float]:
    """Medians and 90th percentiles over ``walks``; walks whose ends sound the same have no ratio."""
    largest = np.array([one.largest_over_mean for one in walks])
    path = np.array([one.path_over_distance for one in walks])
    return {
        "largest_over_mean_step": float(np.nanmedian(largest)),
        "largest_over_mean_step_p90": float(np.nanpercentile(largest, 90)),
        "path_over_distance": float(np.nanmedian(path)),
        "path_over_distance_p90": float(np.nanpercentile(path, 90)),
        "step_db": float(np.median([np.mean(one.steps_db) for one in walks])),
        "distance_db": float(np.median([one.distance_db for one in walks])),
    }
