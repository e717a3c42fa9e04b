"""Vectors filed by the semitone that sounds, each semitone one contiguous block of rows.

So a gate is a few slices: what lies outside it is never looked at, and cannot come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from timbrel.errors import DataError

# Vectors must be l2-normalised: then the inner product is the cosine. Half-precision encoders stay within
# this.
NORM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows ``start`` to ``stop`` sound at ``semitone`` (``None``: they have no pitch)."""

    semitone: int | None
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Store:
    """The vectors, float32 [n, d], in partition order: semitones ascending, what has no pitch last.

    ``ids`` int64 [n]; ``partitions`` cover all rows, in order.
    """

    vectors: np.ndarray
    ids: np.ndarray
    partitions: tuple[Partition, ...]

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def semitones(self) -> np.ndarray:
        """Of every row, float64 [n]; NaN where nothing has a pitch."""
        kept = [math.nan if part.semitone is None else float(part.semitone) for part in self.partitions]
        return np.repeat(kept, [len(part) for part in self.partitions])


def file_by_pitch(vectors: np.ndarray, f0_midi: np.ndarray, ids: np.ndarray | None = None) -> Store:
    """File ``vectors`` float32 [n, d], l2-normalised, under ``f0_midi`` float [n] (NaN: no pitch).

    ``ids`` int64 [n] are the caller's own, unique and not negative; by default the row numbers.

    Raises:
        DataError: wrong dtype or shape, values that are not finite, vectors not normalised, ids not unique.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        raise DataError(f"index vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}")
    count = len(vectors)
    keys = np.arange(count, dtype=np.int64) if ids is None else np.asarray(ids)
    if keys.shape != (count,) or keys.dtype != np.int64:
        raise DataError(f"index ids must be int64 [{count}], not {keys.dtype} {list(keys.shape)}")
    if keys.min() < 0 or len(np.unique(keys)) != count:
        raise DataError("index ids must be unique and not negative")
    pitches = np.asarray(f0_midi, dtype=np.float64)
    if pitches.shape != (count,) or np.isinf(pitches).any():
        raise DataError(f"f0_midi must hold {count} finite numbers (or NaN where nothing has a pitch)")
    if not np.isfinite(vectors).all():
        raise DataError("index vectors must be finite")
    worst = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
    if worst > NORM_TOLERANCE:
        raise DataError(f"index vectors must be l2-normalised; one's length is off by {worst:.3g}")

    filed = np.where(np.isnan(pitches), np.inf, np.floor(pitches + 0.5))  # ``semitone`` of them all
    order = np.lexsort((keys, filed))
    held, counts = np.unique(filed, return_counts=True)
    stops = np.cumsum(counts)
    partitions = tuple(
        Partition(None if math.isinf(key) else int(key), int(stop - size), int(stop))
        for key, size, stop in zip(held, counts, stops, strict=True)
    )
    return Store(np.ascontiguousarray(vectors[order]), keys[order], partitions)
