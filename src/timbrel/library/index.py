"""The pitch-conditioned index: a library's stage-1 vectors, one partition per sounding semitone.

A render is filed under the pitch that sounds, ``semitone(f0_midi)``; renders without a pitch have a partition
of their own, which only an all-pitch query reads. A query names a pitch and a window in semitones and is
answered from the partitions within it, so an id outside the window cannot come back: nothing is filtered
after the fact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timbrel.errors import DataError, InputError
from timbrel.library import gate as gates
from timbrel.library import index_files
from timbrel.library.gate import semitone as semitone
from timbrel.library.partitions import NORM_TOLERANCE, Partition, Store, file_by_pitch

# Gates that were asked for before; more than a window's every centre, and bounded.
_REMEMBERED_GATES = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest entries, nearest first: ``ids`` int64 [n], ``distances`` float32 [n] (1 − cosine)."""

    ids: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a gate opens: the partitions, and the same rows as few slices."""

    partitions: tuple[Partition, ...]
    slices: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, partitions: Sequence[Partition]) -> _Gate:
        slices: list[tuple[int, int]] = []
        for part in partitions:
            start = slices.pop()[0] if slices and slices[-1][1] == part.start else part.start
            slices.append((start, part.stop))
        return cls(tuple(partitions), tuple(slices))

    def rows(self) -> np.ndarray:
        return np.concatenate([np.arange(*each) for each in self.slices] or [np.empty(0, dtype=np.int64)])


class PitchIndex:
    """Immutable once made: to add and to remove gives another index. Searching is thread-safe: nothing is
    written but gates that were worked out before, whole ones.
    """

    def __init__(self, store: Store, *, encoder: str) -> None:
        self._store = store
        self._gates: dict[tuple[int, int, bool] | None, _Gate] = {}
        self.dimension = store.dimension
        self.encoder = encoder

    @classmethod
    def build(
        cls, vectors: np.ndarray, f0_midi: np.ndarray, *, encoder: str, ids: np.ndarray | None = None
    ) -> PitchIndex:
        """Index ``vectors`` float32 [n, d], l2-normalised, under ``f0_midi`` float [n] (NaN: no pitch).

        ``ids`` int64 [n] are the caller's own, unique and not negative; by default the row numbers.
        ``encoder`` is the SHA-256 of the model that made the vectors.

        Raises:
            DataError: wrong dtype or shape, values that are not finite, vectors not normalised, ids not
            unique.
        """
        return cls(file_by_pitch(vectors, f0_midi, ids), encoder=encoder)

    def add(self, vectors: np.ndarray, f0_midi: np.ndarray, ids: np.ndarray) -> PitchIndex:
        """Another index that holds these, too; what was there keeps its ids.

        Raises:
            DataError: as ``build``; an id is taken, or the dimension is another.
        """
        if vectors.ndim == 2 and vectors.shape[1] != self.dimension:
            raise DataError(f"the vectors have {vectors.shape[1]} dimensions, the index has {self.dimension}")
        taken = np.intersect1d(self._store.ids, ids)
        if len(taken):
            raise DataError(f"the index holds {len(taken)} of these ids already, {taken[0]} among them")
        new = file_by_pitch(vectors, f0_midi, ids)
        return PitchIndex(
            file_by_pitch(
                np.concatenate([self._store.vectors, new.vectors]),
                np.concatenate([self._store.semitones, new.semitones]),
                np.concatenate([self._store.ids, new.ids]),
            ),
            encoder=self.encoder,
        )

    def remove(self, ids: np.ndarray) -> PitchIndex:
        """Another index without these; what stays keeps its ids.

        Raises:
            DataError: an id is not in the index, or nothing would stay.
        """
        missing = np.setdiff1d(ids, self._store.ids)
        if len(missing):
            raise DataError(f"the index lacks {len(missing)} of these ids, {missing[0]} among them")
        stay = ~np.isin(self._store.ids, ids)
        if not stay.any():
            raise DataError("nothing would stay in the index; build another one instead")
        return PitchIndex(
            file_by_pitch(self._store.vectors[stay], self._store.semitones[stay], self._store.ids[stay]),
            encoder=self.encoder,
        )

    def rebuild(self) -> PitchIndex:
        """The same entries under the same ids, laid out anew."""
        store = self._store
        return PitchIndex(file_by_pitch(store.vectors, store.semitones, store.ids), encoder=self.encoder)

    def __len__(self) -> int:
        return len(self._store.ids)

    @property
    def semitones(self) -> tuple[int, ...]:
        """The semitones that hold anything, ascending."""
        return tuple(part.semitone for part in self._store.partitions if part.semitone is not None)

    def ids_within(self, pitch: float | None, window: int, *, octaves: bool = False) -> np.ndarray:
        """Every id that a query with this gate may return, int64, ascending."""
        return np.sort(self._store.ids[self._gate(pitch, window, octaves).rows()])

    def vector(self, ident: int) -> np.ndarray:
        """The vector that was filed under an id, float32 [d]. Raises InputError."""
        (rows,) = np.nonzero(self._store.ids == ident)
        if not len(rows):
            raise InputError(f"the index has no id {ident}; take one from the library's render table")
        return np.asarray(self._store.vectors[rows[0]])

    def query(
        self,
        vector: np.ndarray,
        *,
        pitch: float | None,
        window: int,
        k: int,
        octaves: bool = False,
        allow: np.ndarray | None = None,
    ) -> Found:
        """The ``k`` nearest entries among those within ``window`` semitones of ``pitch``; all of them for
        ``None``.

        Args:
            vector: float32 [d], l2-normalised.
            octaves: also what lies within the window of the pitch's octaves.
            allow: bool, by id: entries whose place holds False are not looked at. It must reach to the largest id.

        Fewer than ``k`` come back when gate and ``allow`` leave fewer. Equal distances are ordered by id.

        Raises:
            InputError: a vector of another dtype, dimension or length, or not finite; ``k`` or ``window`` too
            small; ``allow`` is not bool or too short.
        """
        if k < 1:
            raise InputError(f"k is {k}; ask for at least 1")
        if vector.dtype != np.float32 or vector.shape != (self.dimension,) or not _is_unit(vector):
            raise InputError(_fault(vector, self.dimension))
        gate = self._gate(pitch, window, octaves)
        vector = np.ascontiguousarray(vector)
        if allow is not None:
            return self._answer(vector, self._allowed(gate, allow), k)
        if not gate.slices:
            return Found(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        return self._answer(vector, self._store.nearest(vector, gate.slices, k), k)

    def query_batch(
        self,
        vectors: np.ndarray,
        *,
        pitches: Sequence[float | None] | np.ndarray,
        window: int,
        k: int,
        octaves: bool = False,
        allow: np.ndarray | None = None,
    ) -> tuple[Found, ...]:
        """``query`` for each of ``vectors`` [q, d] at its own of ``pitches`` (NaN or None: all pitches)."""
        if vectors.ndim != 2 or len(vectors) != len(pitches):
            raise InputError(f"{list(vectors.shape)} query vectors do not go with {len(pitches)} pitches")
        gated = [None if pitch is None or math.isnan(pitch) else float(pitch) for pitch in pitches]
        return tuple(
            self.query(vector, pitch=pitch, window=window, k=k, octaves=octaves, allow=allow)
            for vector, pitch in zip(vectors, gated, strict=True)
        )

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``; a former one there stays valid until the new one is complete."""
        index_files.write(folder, self._store, encoder=self.encoder)

    @classmethod
    def load(cls, folder: Path, *, encoder: str | None = None) -> PitchIndex:
        """Read an index that ``save`` wrote. With ``encoder`` it must have been made by that model.

        Raises:
            BundleError: missing, torn, of another format or metric, or made by another encoder.
        """
        store, made_by = index_files.read(folder, encoder=encoder)
        return cls(store, encoder=made_by)

    def _gate(self, pitch: float | None, window: int, octaves: bool) -> _Gate:
        key = None if pitch is None or not math.isfinite(pitch) else (semitone(pitch), window, octaves)
        known = self._gates.get(key) if key is not None or pitch is None else None
        if known is not None:
            return known
        partitions = self._store.partitions
        if pitch is not None:
            held = gates.opened(self.semitones, pitch, window, octaves=octaves)
            partitions = tuple(part for part in partitions if part.semitone in held)
        gate = _Gate.of(partitions)
        if len(self._gates) < _REMEMBERED_GATES:
            self._gates[key] = gate
        return gate

    def _allowed(self, gate: _Gate, allow: np.ndarray) -> np.ndarray:
        """The rows within the gate that ``allow`` lets through."""
        if allow.dtype != np.bool_ or allow.ndim != 1 or len(allow) <= self._store.ids.max():
            raise InputError(
                f"allow must be bool, one for each id from 0 to {self._store.ids.max()}; it is {allow.dtype} "
                f"{list(allow.shape)}"
            )
        rows = gate.rows()
        return rows[allow[self._store.ids[rows]]]

    def _answer(self, vector: np.ndarray, rows: np.ndarray, k: int) -> Found:
        """The ``k`` nearest of these rows, by exact distance."""
        ids = self._store.ids[rows]
        distances = np.maximum(1 - self._store.products(vector, rows), np.float32(0))
        order = np.lexsort((ids, distances))[:k]
        return Found(ids[order], distances[order])


def _is_unit(vector: np.ndarray) -> bool:
    # NaN compares false.
    return abs(math.sqrt(vector @ vector) - 1) <= NORM_TOLERANCE


def _fault(vector: np.ndarray, dimension: int) -> str:
    """What is wrong with a query vector that cannot be searched for."""
    if vector.dtype != np.float32:
        return f"the query vector must be float32, not {vector.dtype}"
    if vector.shape != (dimension,):
        return f"the query vector has shape {list(vector.shape)}; the index needs [{dimension}]"
    if not np.isfinite(vector).all():
        return "the query vector holds values that are not finite"
    return "the query vector is not l2-normalised; divide it by its length"
