"""Inverted files by pitch, in Faiss: the vectors of a partition in cells of like timbre, of which a query reads the
nearest. ``cells`` has lists of our own, and shares with this how cells and principal components are trained.

List (partition, cell) of one Faiss index holds what lies in both. So a gate is a choice of lists, its partitions
are searched in one call, and the cells nearest to a query are found once for all of them.

    vector ─► principal components ─► nearest cells × the gate's partitions ─► lists ─► candidate rows

What the lists hold: the vectors as they are ("ivf_flat"), or 4-bit product-quantiser codes for the fast-scan kernel
("ivf_pq", behind OPQ: Ge et al. 2013). Codes only choose the candidates; distances are computed from the full
vectors (``scan``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss as typed_faiss
import numpy as np

from timbrel.library.partitions import Store

faiss: Any = typed_faiss  # its stub lacks much of what it has

KINDS = ("ivf_flat", "ivf_pq")
# Candidates for every hit that is asked for: what a code's error may cost in order. And a few more, for small k.
OVERSAMPLING = {"ivf_flat": 1.0, "ivf_pq": 4.0}
_CLASSES = {"ivf_flat": "IndexIVFFlat", "ivf_pq": "IndexIVFPQFastScan"}
_EXTRA = {"ivf_flat": 0, "ivf_pq": 24}
# The components keep this share of the squared length; what they leave out, the full vectors bring back.
_ENERGY = 0.98
# Registers hold this many numbers: fewer components would not be faster.
_LANES = 8
_CELL_SIZE = 56  # vectors; smaller cells cost more in finding than they save in reading
_MAX_CELLS = 1024
_TRAINING = 50_000
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Lists:
    """A choice of lists: for the ``rank``-th nearest cell of a query the list ``first`` + cell, both int64 [m];
    ``cells`` is how many cells are needed. ``parameters`` go with each call: the index's own are shared by threads.
    """

    first: np.ndarray
    rank: np.ndarray
    cells: int
    parameters: Any  # faiss.SearchParametersIVF


@dataclass(frozen=True, slots=True)
class Inverted:
    """Lists over some partitions of a store. ``first_list`` maps a partition's number to its first list.

    ``rotation`` float32 [r, d] makes what cells and codes are of; ``centroids`` float32 [cells, r].
    """

    kind: str
    rotation: np.ndarray
    centroids: np.ndarray
    first_list: dict[int, int]
    index: Any  # faiss.IndexIVF

    @property
    def efforts(self) -> tuple[int, ...]:
        """Numbers of cells to read, least first."""
        return ladder(len(self.centroids))

    def prepare(self, efforts: Mapping[int, int]) -> Lists:
        """What ``search`` takes: of each of these partitions so many cells."""
        first = [self.first_list[number] for number, effort in efforts.items() for _ in range(effort)]
        rank = [each for effort in efforts.values() for each in range(effort)]
        return Lists(
            np.array(first), np.array(rank), max(rank) + 1, faiss.SearchParametersIVF(nprobe=len(rank))
        )

    def search(self, vectors: np.ndarray, lists: Lists, k: int) -> np.ndarray:
        """Candidate rows for the ``k`` nearest to each of ``vectors`` [q, d], int64 [q, m], -1 for none."""
        count, most = len(vectors), lists.cells
        seen = vectors @ self.rotation.T
        near = seen @ -self.centroids.T
        if most > 1:
            some = near.argpartition(most - 1, axis=1)[:, :most]
            row = np.arange(count)[:, None]
            cells = some[row, near[row, some].argsort(axis=1)]
        else:
            cells = near.argmin(axis=1)[:, None]
        read = np.ascontiguousarray(cells.take(lists.rank, axis=1) + lists.first)
        wanted = int(k * OVERSAMPLING[self.kind]) + _EXTRA[self.kind]
        products = np.empty((count, wanted), dtype=np.float32)
        rows = np.empty((count, wanted), dtype=np.int64)
        unused = np.zeros(read.shape, dtype=np.float32)  # distances to the cells, for residual codes
        self.index.search_preassigned_c(
            count,
            faiss.swig_ptr(seen),
            wanted,
            faiss.swig_ptr(read),
            faiss.swig_ptr(unused),
            faiss.swig_ptr(products),
            faiss.swig_ptr(rows),
            False,
            lists.parameters,
        )
        return rows

    def layout(self) -> dict[str, Any]:
        """What of this goes into an index's sidecar."""
        return {"first_list": list(self.first_list.items()), "cells": list(self.centroids.shape)}

    def arrays(self) -> dict[str, np.ndarray]:
        """What of this goes into an index's data file."""
        return {
            f"{self.kind}.rotation": self.rotation.astype("<f4", copy=False),
            f"{self.kind}.centroids": self.centroids.astype("<f4", copy=False),
            f"{self.kind}.lists": faiss.serialize_index(self.index),
        }

    def forget(self, partition: int) -> None:
        """Empty a partition's lists: it is searched in another way."""
        first = self.first_list.pop(partition)
        for number in range(first, first + len(self.centroids)):
            self.index.ntotal -= self.index.invlists.list_size(number)
            self.index.invlists.resize(number, 0)


def fit(kind: str, store: Store, members: Sequence[int], *, seed: int = 0) -> Inverted:
    """Train on the partitions ``members`` (their numbers) of the store, and file their vectors."""
    some, mean_size = sample(store, members, seed)
    rotation = np.eye(store.dimension, dtype=np.float32) if kind == "ivf_flat" else _balanced(some)
    seen = some @ rotation.T
    centroids = means(seen, mean_size / _CELL_SIZE, seed)
    index = _empty(kind, centroids, len(members), seen)
    if not index.is_trained:
        index.train(seen)
    first_list = {number: place * len(centroids) for place, number in enumerate(members)}
    for number in members:
        part = store.partitions[number]
        for start in range(part.start, part.stop, _CHUNK):
            block = np.arange(start, min(start + _CHUNK, part.stop))
            coded = np.ascontiguousarray(store.vectors[block] @ rotation.T)
            lists = (first_list[number] + (coded @ centroids.T).argmax(axis=1)).astype(np.int64)
            index.add_core(
                len(block),
                faiss.swig_ptr(coded),
                faiss.swig_ptr(block),
                faiss.swig_ptr(lists),
            )
    if kind == "ivf_pq":
        index = faiss.IndexIVFPQFastScan(index)
    # Lists are always chosen here, so the copy of the centroids in each partition's name is never read.
    index.quantizer.reset()
    return Inverted(kind, rotation, centroids, first_list, index)


def restore(kind: str, layout: Mapping[str, Any], arrays: Mapping[str, np.ndarray], store: Store) -> Inverted:
    """What ``layout`` and ``arrays`` kept. Raises ValueError where the parts do not belong together."""
    cells, components = layout["cells"]
    centroids = arrays[f"{kind}.centroids"].view("<f4").reshape(cells, components)
    rotation = arrays[f"{kind}.rotation"].view("<f4").reshape(components, store.dimension)
    index = faiss.deserialize_index(arrays[f"{kind}.lists"])
    if not isinstance(index, getattr(faiss, _CLASSES[kind])):
        raise ValueError(f"the lists of {kind} are a {type(index).__name__}")
    first_list = {int(number): int(first) for number, first in layout["first_list"]}
    held = sum(len(store.partitions[number]) for number in first_list)
    if index.d != components or index.ntotal != held or max(first_list.values()) + cells > index.nlist:
        raise ValueError(
            f"the lists of {kind} hold {index.ntotal} vectors of {index.d}, not {held} of {components}"
        )
    return Inverted(kind, rotation.astype(np.float32), centroids.astype(np.float32), first_list, index)


def ladder(cells: int) -> tuple[int, ...]:
    """Numbers of cells that are tried, least first; three quarters of them at most, beyond which a scan is as fast."""
    steps = (
        *range(1, 17),
        *range(18, 33, 2),
        *range(36, 65, 4),
        72,
        80,
        96,
        112,
        128,
        160,
        192,
        256,
        320,
        384,
    )
    return tuple(each for each in steps if each <= max(1, cells * 3 // 4))


def sample(store: Store, members: Sequence[int], seed: int) -> tuple[np.ndarray, float]:
    """Vectors of the partitions ``members`` to train on, and the mean size of these partitions."""
    rows = np.concatenate([np.arange(store.partitions[n].start, store.partitions[n].stop) for n in members])
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:_TRAINING])
    return store.vectors[chosen], len(rows) / len(members)


def principal(some: np.ndarray) -> np.ndarray:
    """Onto the principal components of ``some`` [n, d], most weighty first, float32 [r, d]; not centred, since
    products are compared.
    """
    dimension = some.shape[1]
    weights, axes = np.linalg.eigh((some.T @ some).astype(np.float64))
    share = np.cumsum(weights[::-1]) / weights.sum()
    kept = int(np.searchsorted(share, _ENERGY)) + 1
    kept = min(dimension, -(-kept // _LANES) * _LANES)
    return np.ascontiguousarray(axes[:, ::-1][:, :kept].T, dtype=np.float32)


def _balanced(some: np.ndarray) -> np.ndarray:
    """Principal components differ in weight, and every sub-quantiser has as many bits: share the weight out."""
    rotation = principal(some)
    kept = len(rotation)
    if kept == 1:
        return rotation
    opq = faiss.OPQMatrix(kept, _subquantisers(kept))
    opq.niter = 15
    opq.train(np.ascontiguousarray(some[:20_000] @ rotation.T))
    return np.ascontiguousarray(faiss.vector_to_array(opq.A).reshape(kept, kept) @ rotation)


def means(seen: np.ndarray, wanted: float, seed: int) -> np.ndarray:
    """Spherical k-means of ``seen`` [n, r], float32 [cells, r]; about ``wanted`` cells, a power of two."""
    cells = int(np.clip(2 ** round(np.log2(max(wanted, 1))), 1, _MAX_CELLS))
    trained = faiss.Kmeans(
        seen.shape[1],
        min(cells, len(seen)),
        niter=10,
        spherical=True,
        seed=seed + 1,
        min_points_per_centroid=1,
    )
    trained.train(seen)
    return np.array(trained.centroids, dtype=np.float32)


def _subquantisers(dimension: int) -> int:
    return dimension // 2 if dimension % 2 == 0 else dimension


def _empty(kind: str, centroids: np.ndarray, partitions: int, seen: np.ndarray) -> Any:
    """An untrained Faiss index with a list for every cell of every partition."""
    cells, dimension = centroids.shape
    metric = faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(np.tile(centroids, (partitions, 1)))
    lists = cells * partitions
    if kind == "ivf_flat":
        index = faiss.IndexIVFFlat(quantizer, dimension, lists, metric)
    else:
        index = faiss.IndexIVFPQ(quantizer, dimension, lists, _subquantisers(dimension), 4, metric)
        index.by_residual = False
    index.own_fields = True
    quantizer.this.disown()
    return index
