"""Vectors filed by the semitone that sounds, each semitone one contiguous block of rows.

So a gate is a few slices: what lies outside it is never looked at, and cannot come back. Every distance that a
search answers with is computed here, from the full vectors and row by row, whatever chose the candidates: equal
vectors have equal distances, however the library is laid out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss as typed_faiss
import numpy as np

from timbrel.errors import DataError

faiss: Any = typed_faiss  # its stub lacks much of what it has

# Vectors must be l2-normalised: then the inner product is the cosine. Half-precision encoders stay within
# this.
NORM_TOLERANCE = 1e-2
# How far the products of a blocked scan may lie from those computed row by row: float32 sums of a few thousand
# terms whose squares add up to one.
ROUNDING = 1e-5


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

    def products(self, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products of each of ``vectors`` float32 [q, d] with its own rows, int64 [q, m] -> float32 [q, m]."""
        found = np.empty(rows.shape, dtype=np.float32)
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(found),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(self.vectors),
            faiss.swig_ptr(rows),
            self.vectors.shape[1],
            *rows.shape,
        )
        return found

    def nearest(
        self,
        vectors: np.ndarray,
        slices: Sequence[tuple[int, int]],
        k: int,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        """By scan, the rows of the ``k`` largest inner products with each of ``vectors`` [q, d] within ``slices``,
        or among the ``allowed`` rows: in no order, int64 [q, m]. Rows as near as the last of them are all there, so
        more than ``k`` may come; -1 fills up where fewer do.
        """
        if allowed is None:
            blocks = [self.vectors[start:stop] for start, stop in slices]
            numbers = np.concatenate([np.arange(*each) for each in slices] or [np.empty(0, np.int64)])
        else:
            blocks, numbers = [self.vectors[allowed]], allowed
        if k >= len(numbers):
            return np.repeat(numbers[None], len(vectors), axis=0)
        products = [vectors @ block.T for block in blocks]
        similar = products[0] if len(products) == 1 else np.concatenate(products, axis=1)
        floors = np.partition(similar, len(numbers) - k, axis=1)[:, len(numbers) - k] - ROUNDING
        query, place = np.nonzero(similar >= floors[:, None])
        counts = np.bincount(query, minlength=len(vectors))
        rows = np.full((len(vectors), counts.max()), -1, dtype=np.int64)
        rows[query, np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)] = numbers[place]
        return rows


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
