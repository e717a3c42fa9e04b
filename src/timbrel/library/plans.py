"""How each partition is searched: chosen from its size and the recall that is wanted, and proven when it is built.

An approximate plan has an effort (cells read, length of HNSW's queue), and recall depends on it and on how many
hits are asked for. So for each partition and for a few numbers of hits, the least effort is looked for that
finds the wanted share of what an exact scan finds. Where no effort does, the partition gets the next better plan,
and the last of these is the scan itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from timbrel.errors import ConfigurationError
from timbrel.library import cells, gpu, graphs, inverted
from timbrel.library.partitions import Partition, Store

AUTO, FLAT, HNSW = "auto", "flat", "hnsw"
KINDS = (FLAT, HNSW, cells.KIND, *inverted.KINDS, *gpu.KINDS)
# What a partition gets when its plan misses the recall that is wanted.
BETTER = {
    "gpu_cagra": cells.KIND,
    "gpu_ivf_pq": cells.KIND,
    "ivf_pq": cells.KIND,
    cells.KIND: "ivf_flat",
    "ivf_flat": FLAT,
    HNSW: FLAT,
}
# Recall is proven for these numbers of hits; between them the larger counts, beyond them partitions are scanned.
DEPTHS = (10, 100, 500)
# A scan of fewer vectors costs less than the choice of what to read (measured: benchmarks/index.py).
FLAT_BELOW = 2000
# Codes and cells need something to learn from.
APPROXIMATE_FROM = 64
# A partition is proven for a number of hits where it holds this many times as many.
_ROOM = 4
_QUERIES = 64
# Two vectors whose sum is shorter have no mean that could be asked for.
_OPPOSITE = np.float32(0.1)
TARGET_RECALL = 0.95


class Searcher(Protocol):
    """Finds candidate rows in some partitions."""

    @property
    def efforts(self) -> tuple[int, ...]: ...
    def prepare(self, efforts: Mapping[int, int]) -> Any: ...
    def search(self, vectors: np.ndarray, prepared: Any, k: int) -> np.ndarray: ...
    def layout(self) -> dict[str, Any]: ...
    def arrays(self) -> dict[str, np.ndarray]: ...
    def forget(self, partition: int) -> None: ...


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """How a partition is searched. For each of ``DEPTHS`` the effort and the recall that was measured with it;
    None: it is scanned.
    """

    kind: str
    efforts: tuple[int | None, ...] = (None,) * len(DEPTHS)
    recalls: tuple[float | None, ...] = (None,) * len(DEPTHS)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan for every partition of a store, and by kind the searchers of those that are not scanned."""

    partitions: tuple[PartitionPlan, ...]
    searchers: Mapping[str, Searcher]
    target_recall: float = TARGET_RECALL


def choose(size: int, target_recall: float) -> str:
    """The plan for a partition of which a gate of a semitone either side opens ``size`` vectors: the fastest of
    those measured at that size.
    """
    return FLAT if size < FLAT_BELOW or target_recall >= 1 else cells.KIND


def prepare(store: Store, *, plan: str = AUTO, target_recall: float = TARGET_RECALL, seed: int = 0) -> Plan:
    """A proven plan for every partition: ``plan`` where it can be, "auto" for what ``choose`` says. Without the
    GPU or the Faiss for it (``gpu.probe``), a GPU plan gives way to the next better one, too.

    Raises:
        ConfigurationError: there is no such plan, or the recall is not within 0 and 1.
    """
    if plan != AUTO and plan not in KINDS:
        raise ConfigurationError(f"there is no index plan {plan!r}; take one of {', '.join((AUTO, *KINDS))}")
    if not 0 < target_recall <= 1:
        raise ConfigurationError(f"the index's target recall is {target_recall}; it must lie in (0, 1]")
    kinds = [
        FLAT
        if len(part) < APPROXIMATE_FROM
        else plan
        if plan != AUTO
        else choose(_around(store, part), target_recall)
        for part in store.partitions
    ]
    if plan in gpu.KINDS and plan not in gpu.probe().kinds:
        kinds = [BETTER.get(kind, kind) if kind == plan else kind for kind in kinds]
    plans = [PartitionPlan(FLAT)] * len(kinds)
    searchers: dict[str, Searcher] = {}
    for kind in (*gpu.KINDS, HNSW, "ivf_pq", cells.KIND, "ivf_flat"):  # each before what is better
        members = [number for number, each in enumerate(kinds) if each == kind]
        if not members:
            continue
        searcher = fit(kind, store, members, seed)
        for number in members:
            proven = prove(kind, searcher, store, number, target_recall, seed)
            if proven.efforts[0] is None:
                kinds[number] = BETTER[kind]
                searcher.forget(number)
            else:
                plans[number] = proven
        if kind in kinds:
            searchers[kind] = searcher
    return Plan(tuple(plans), searchers, target_recall)


def _around(store: Store, part: Partition) -> int:
    """How many vectors a gate of a semitone either side of a partition opens."""
    if part.semitone is None:
        return len(part)
    return sum(
        len(other)
        for other in store.partitions
        if other.semitone is not None and abs(other.semitone - part.semitone) <= 1
    )


def restore(kind: str, layout: Mapping[str, Any], arrays: Mapping[str, np.ndarray], store: Store) -> Searcher:
    """The searcher that ``layout`` and ``arrays`` kept. Raises KeyError or ValueError where it cannot be."""
    if kind == HNSW:
        return graphs.restore(layout, arrays, store)
    if kind == cells.KIND:
        return cells.restore(layout, arrays, store)
    return inverted.restore(kind, layout, arrays, store)


def fit(kind: str, store: Store, members: Sequence[int], seed: int) -> Searcher:
    if kind in gpu.KINDS:
        return gpu.fit(kind, store, members)
    if kind == HNSW:
        return graphs.fit(store, members)
    if kind == cells.KIND:
        return cells.fit(store, members, seed=seed)
    return inverted.fit(kind, store, members, seed=seed)


def prove(
    kind: str, searcher: Searcher, store: Store, number: int, target_recall: float, seed: int
) -> PartitionPlan:
    """The least efforts that reach ``target_recall`` in a partition. It is asked with means of two vectors of the
    others: what sounds at another pitch is as near to this partition as a query is, and none finds itself; and two at
    once, since an instrument that the library lacks lies between those it has, and its neighbours in more cells.
    """
    part = store.partitions[number]
    rng = np.random.default_rng((seed, number))
    others = np.r_[0 : part.start, part.stop : len(store.ids)]
    one, other = store.vectors[rng.choice(others if len(others) else len(store.ids), (2, _QUERIES))]
    vectors = one + other
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.where(lengths > _OPPOSITE, vectors / np.maximum(lengths, _OPPOSITE), one)
    similar = vectors @ store.vectors[part.start : part.stop].T
    efforts: list[int | None] = []
    recalls: list[float | None] = []
    for k in DEPTHS:
        effort, recall = None, None
        if len(part) >= _ROOM * k:
            floors = np.partition(similar, len(part) - k, axis=1)[:, -k, None]
            for tried in searcher.efforts:
                rows = searcher.search(vectors, searcher.prepare({number: tried}), k)
                reached = np.take_along_axis(similar, np.maximum(rows - part.start, 0), axis=1) >= floors
                hits = np.minimum(np.count_nonzero(reached & (rows >= 0), axis=1), k).sum()
                if hits >= target_recall * k * _QUERIES:
                    effort, recall = tried, round(float(hits) / (k * _QUERIES), 4)
                    break
        efforts.append(effort)
        recalls.append(recall)
    return PartitionPlan(kind, tuple(efforts), tuple(recalls))
