"""The pitch-conditioned index: a library's stage-1 vectors, one partition per sounding semitone.

A render is filed under the pitch that sounds, ``semitone(f0_midi)``; renders without a pitch have a partition
of their own, which only an all-pitch query reads. A query names a pitch and a window in semitones and is
answered from the partitions within it, so an id outside the window cannot come back: nothing is filtered
after the fact.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from timbrel.errors import DataError, InputError
from timbrel.library import gate as gates
from timbrel.library import index_files
from timbrel.library import plans as planning
from timbrel.library.cells import NO_LISTS, NO_ROWS, NO_SLICES, NONE_GIVEN, Cells, Lists
from timbrel.library.gate import semitone as semitone
from timbrel.library.partitions import Partition, Store, file_by_pitch
from timbrel.library.plans import PartitionPlan, Plan, Searcher

# Gates that were asked for before; more than a window's every centre, and bounded.
_REMEMBERED_GATES = 1024
# Distances that a batch computes at once: 64 MiB.
_DISTANCES = 2**24


class Found(NamedTuple):
    """The nearest entries, nearest first: ``ids`` int64 [n], ``distances`` float32 [n] (1 − cosine)."""

    ids: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Gate:
    """What a gate opens: ``size`` rows, int64 ``slices`` [s, 2]. And how so many hits are looked for in it: the
    slices that are ``scanned``, the ``lists`` of cells, and for each other searcher what it prepared.
    """

    size: int
    slices: np.ndarray
    scanned: np.ndarray
    lists: Lists
    searches: tuple[tuple[Searcher, Any], ...]

    def rows(self) -> np.ndarray:
        return np.concatenate([np.arange(*each) for each in self.slices] or [np.empty(0, dtype=np.int64)])


def _slices(partitions: Sequence[Partition]) -> np.ndarray:
    slices: list[tuple[int, int]] = []
    for part in partitions:
        start = slices.pop()[0] if slices and slices[-1][1] == part.start else part.start
        slices.append((start, part.stop))
    return np.array(slices, dtype=np.int64) if slices else NO_SLICES


def _runs(rows: np.ndarray) -> np.ndarray:
    """Ascending ``rows`` as slices."""
    ends = np.flatnonzero(np.diff(rows, append=-1) != 1)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    return np.stack([rows[starts], rows[ends] + 1], axis=1)


class PitchIndex:
    """Immutable once made: to add and to remove gives another index. Searching is thread-safe: nothing is
    written but gates that were worked out before, whole ones. How each partition is searched says ``plans``.
    """

    def __init__(self, store: Store, plan: Plan, *, encoder: str) -> None:
        """Use ``build`` or ``load``."""
        self._store = store
        self._plan = plan
        self._largest_id = int(store.ids.max())
        self._gates: dict[tuple[int | None, int, bool, int], _Gate] = {}
        self._nearest = _compiled_search()
        self.dimension = store.dimension
        self.encoder = encoder

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        f0_midi: np.ndarray,
        *,
        encoder: str,
        ids: np.ndarray | None = None,
        plan: str = planning.AUTO,
        target_recall: float = planning.TARGET_RECALL,
    ) -> PitchIndex:
        """Index ``vectors`` float32 [n, d], l2-normalised, under ``f0_midi`` float [n] (NaN: no pitch).

        Args:
            encoder: SHA-256 of the model that made the vectors.
            ids: the caller's own, int64 [n], unique and not negative; by default the row numbers.
            plan: one of ``KINDS`` of ``library.plans`` for every partition that can have it; "auto" chooses for each.
            target_recall: share of the exact answer that an approximate plan has to find; 1 scans everything.

        Raises:
            DataError: wrong dtype or shape, values that are not finite, vectors not normalised, ids not
            unique.
            ConfigurationError: there is no such plan, or the recall is not within 0 and 1.
        """
        store = file_by_pitch(vectors, f0_midi, ids)
        return cls(store, planning.prepare(store, plan=plan, target_recall=target_recall), encoder=encoder)

    def add(self, vectors: np.ndarray, f0_midi: np.ndarray, ids: np.ndarray) -> PitchIndex:
        """Another index that holds these, too; what was there keeps its ids. Plans are chosen anew.

        Raises:
            DataError: as ``build``; an id is taken, or the dimension is another.
        """
        if vectors.ndim == 2 and vectors.shape[1] != self.dimension:
            raise DataError(f"the vectors have {vectors.shape[1]} dimensions, the index has {self.dimension}")
        taken = np.intersect1d(self._store.ids, ids)
        if len(taken):
            raise DataError(f"the index holds {len(taken)} of these ids already, {taken[0]} among them")
        new, old = file_by_pitch(vectors, f0_midi, ids), self._store
        return PitchIndex.build(
            np.concatenate([old.vectors, new.vectors]),
            np.concatenate([old.semitones, new.semitones]),
            ids=np.concatenate([old.ids, new.ids]),
            encoder=self.encoder,
            target_recall=self._plan.target_recall,
        )

    def remove(self, ids: np.ndarray) -> PitchIndex:
        """Another index without these; what stays keeps its ids. Plans are chosen anew.

        Raises:
            DataError: an id is not in the index, or nothing would stay.
        """
        missing = np.setdiff1d(ids, self._store.ids)
        if len(missing):
            raise DataError(f"the index lacks {len(missing)} of these ids, {missing[0]} among them")
        stay = ~np.isin(self._store.ids, ids)
        if not stay.any():
            raise DataError("nothing would stay in the index; build another one instead")
        return PitchIndex.build(
            self._store.vectors[stay],
            self._store.semitones[stay],
            ids=self._store.ids[stay],
            encoder=self.encoder,
            target_recall=self._plan.target_recall,
        )

    def rebuild(self, *, plan: str = planning.AUTO, target_recall: float | None = None) -> PitchIndex:
        """The same entries under the same ids, with plans chosen anew."""
        wanted = self._plan.target_recall if target_recall is None else target_recall
        return PitchIndex(
            self._store, planning.prepare(self._store, plan=plan, target_recall=wanted), encoder=self.encoder
        )

    @property
    def plans(self) -> dict[int | None, PartitionPlan]:
        """By semitone (None: no pitch), how it is searched."""
        return {
            part.semitone: plan
            for part, plan in zip(self._store.partitions, self._plan.partitions, strict=True)
        }

    def __len__(self) -> int:
        return len(self._store.ids)

    @property
    def semitones(self) -> tuple[int, ...]:
        """The semitones that hold anything, ascending."""
        return tuple(part.semitone for part in self._store.partitions if part.semitone is not None)

    def ids_within(self, pitch: float | None, window: int, *, octaves: bool = False) -> np.ndarray:
        """Every id that a query with this gate may return, int64, ascending."""
        return np.sort(self._store.ids[self._gate(pitch, window, octaves, 1).rows()])

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """The vectors that were filed under ``ids`` int64 [n], float32 [n, d]. Raises InputError."""
        order = np.argsort(self._store.ids)
        places = np.minimum(np.searchsorted(self._store.ids, ids, sorter=order), len(order) - 1)
        rows = order[places]
        absent = ids[self._store.ids[rows] != ids]
        if len(absent):
            raise InputError(f"the index has no id {absent[0]}; take one from the library's render table")
        return np.asarray(self._store.vectors[rows])

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
        if vector.ndim != 1:
            raise InputError(_fault(vector, self.dimension))
        self._check(vector[None], k)
        return self._search(self._gate(pitch, window, octaves, k), vector[None], k, allow)[0]

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
        """``query`` for each of ``vectors`` [q, d] at its own of ``pitches`` (NaN or None: all pitches), faster
        than one by one: those of one gate are searched together.
        """
        if vectors.ndim != 2 or len(vectors) != len(pitches):
            raise InputError(f"{list(vectors.shape)} query vectors do not go with {len(pitches)} pitches")
        self._check(vectors, k)
        at = np.array([math.nan if pitch is None else pitch for pitch in pitches], dtype=np.float64)
        if np.isinf(at).any():
            raise InputError("a pitch is infinite; give finite MIDI numbers, or none for all pitches")
        filed = np.floor(at + 0.5)  # ``semitone`` of them all
        if len(at) and (filed == filed[0]).all():
            return tuple(self._together(vectors, float(at[0]), window, k, octaves, allow))
        order = np.argsort(filed, kind="stable")  # NaN last
        found: list[Found] = []
        for numbers in np.split(order, np.flatnonzero(np.diff(np.nan_to_num(filed[order], nan=1e9))) + 1):
            first = float(at[numbers[0]]) if len(numbers) else math.nan
            found += self._together(vectors[numbers], first, window, k, octaves, allow)
        answers = dict(zip(order.tolist(), found, strict=True))
        return tuple(answers[number] for number in range(len(vectors)))

    def _together(
        self, vectors: np.ndarray, pitch: float, window: int, k: int, octaves: bool, allow: np.ndarray | None
    ) -> list[Found]:
        """Queries of one gate, as many at once as their products have room."""
        gate = self._gate(None if math.isnan(pitch) else pitch, window, octaves, k)
        at_once = max(1, _DISTANCES // (gate.size or 1))
        if len(vectors) <= at_once:
            return self._search(gate, vectors, k, allow)
        found: list[Found] = []
        for start in range(0, len(vectors), at_once):
            found += self._search(gate, vectors[start : start + at_once], k, allow)
        return found

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``; a former one there stays valid until the new one is complete."""
        index_files.write(folder, self._store, self._plan, encoder=self.encoder)

    @classmethod
    def load(cls, folder: Path, *, encoder: str | None = None) -> PitchIndex:
        """Read an index that ``save`` wrote. With ``encoder`` it must have been made by that model.

        Raises:
            BundleError: missing, torn, of another format or metric, or made by another encoder.
        """
        store, plan, made_by = index_files.read(folder, encoder=encoder)
        return cls(store, plan, encoder=made_by)

    def _gate(self, pitch: float | None, window: int, octaves: bool, k: int) -> _Gate:
        depth = bisect.bisect_left(planning.DEPTHS, k)
        middle = None if pitch is None else gates.centre(pitch)
        key = (middle, window, octaves, depth)
        known = self._gates.get(key)
        if known is not None:
            return known
        numbers = list(range(len(self._store.partitions)))
        if middle is not None:
            held = set(gates.opened(self.semitones, middle, window, octaves=octaves))
            numbers = [number for number in numbers if self._store.partitions[number].semitone in held]
        gate = self._open(numbers, depth)
        if len(self._gates) < _REMEMBERED_GATES:
            self._gates[key] = gate
        return gate

    def _open(self, numbers: Sequence[int], depth: int) -> _Gate:
        """The gate that opens these partitions, for as many hits as ``planning.DEPTHS[depth]``, or any number."""
        everything = [self._store.partitions[number] for number in numbers]
        by_kind: dict[str, dict[int, int]] = {}
        for number in numbers:
            plan = self._plan.partitions[number]
            effort = plan.efforts[depth] if depth < len(planning.DEPTHS) else None
            if effort is not None:
                by_kind.setdefault(plan.kind, {})[number] = effort
        searched = set().union(*by_kind.values())
        lists, searches = NO_LISTS, []
        for kind, efforts in by_kind.items():
            searcher = self._plan.searchers[kind]
            if isinstance(searcher, Cells):
                lists = searcher.prepare(efforts)
            else:
                searches.append((searcher, searcher.prepare(efforts)))
        return _Gate(
            sum(len(part) for part in everything),
            _slices(everything),
            _slices([self._store.partitions[number] for number in numbers if number not in searched]),
            lists,
            tuple(searches),
        )

    def _allowed(self, gate: _Gate, allow: np.ndarray) -> np.ndarray:
        """The rows within the gate that ``allow`` lets through."""
        if allow.dtype != np.bool_ or allow.ndim != 1 or len(allow) <= self._largest_id:
            raise InputError(
                f"allow must be bool, one for each id from 0 to {self._largest_id}; it is {allow.dtype} "
                f"{list(allow.shape)}"
            )
        rows = gate.rows()
        return rows[allow[self._store.ids[rows]]]

    def _check(self, vectors: np.ndarray, k: int) -> None:
        """Whether ``vectors`` [q, d] can be searched for, but for their lengths. Raises InputError."""
        if k < 1:
            raise InputError(f"k is {k}; ask for at least 1")
        if vectors.dtype != np.float32 or vectors.shape[1] != self.dimension:
            raise InputError(_fault(vectors[0], self.dimension))

    def _search(self, gate: _Gate, vectors: np.ndarray, k: int, allow: np.ndarray | None) -> list[Found]:
        """What is nearest to each of ``vectors`` [q, d] within a gate, by exact distance. Raises InputError."""
        store, asked = self._store, len(vectors)
        if not vectors.flags.carray:
            vectors = vectors.copy()
        scanned, lists, given = gate.scanned, gate.lists, NONE_GIVEN
        if allow is not None:
            scanned, lists = _runs(self._allowed(gate, allow)), NO_LISTS
        elif gate.searches:
            self._refuse(vectors)
            found = [searcher.search(vectors, prepared, k) for searcher, prepared in gate.searches]
            given = np.ascontiguousarray(np.concatenate(found, axis=1), dtype=np.int64)
        most = min(k, gate.size)
        ids, distances = np.empty((asked, most), np.int64), np.empty((asked, most), np.float32)
        short = self._nearest(store.vectors, store.ids, vectors, scanned, given, *lists, ids, distances)
        if short < 0:
            raise InputError(_fault(vectors[-1 - short], self.dimension))
        if not short:
            return list(map(Found, ids, distances))
        counts = np.isfinite(distances).sum(axis=1).tolist()
        return [Found(ids[row, :count], distances[row, :count]) for row, count in enumerate(counts)]

    def _refuse(self, vectors: np.ndarray) -> None:
        """Raises InputError where one of ``vectors`` is not l2-normalised."""
        nothing = np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float32)
        store = self._store
        wrong = self._nearest(store.vectors, store.ids, vectors, NO_SLICES, NONE_GIVEN, *NO_LISTS, *nothing)
        if wrong < 0:
            raise InputError(_fault(vectors[-1 - wrong], self.dimension))


def _compiled_search() -> Callable[..., int]:
    """``scan.nearest``, ready to be called; imported here, so that what opens no index does not wait for it."""
    from timbrel.library import scan

    nothing = np.empty((0, 1), np.float32), np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
    scan.nearest(nothing[0], NO_ROWS, nothing[0], NO_SLICES, NONE_GIVEN, *NO_LISTS, *nothing[1:])
    return scan.nearest


def _fault(vector: np.ndarray, dimension: int) -> str:
    """What is wrong with a query vector that cannot be searched for."""
    if vector.dtype != np.float32:
        return f"the query vector must be float32, not {vector.dtype}"
    if vector.shape != (dimension,):
        return f"the query vector has shape {list(vector.shape)}; the index needs [{dimension}]"
    if not np.isfinite(vector).all():
        return "the query vector holds values that are not finite"
    return "the query vector is not l2-normalised; divide it by its length"
