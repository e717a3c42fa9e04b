"""One HNSW graph per partition (Malkov & Yashunin 2018), over 8-bit codes of the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss as typed_faiss
import numpy as np

from timbrel.library.partitions import Store

faiss: Any = typed_faiss  # its stub lacks much of what it has

LINKS = 16
CONSTRUCTION = 80
_OVERSAMPLING = 1.25
_EXTRA = 6


@dataclass(frozen=True, slots=True)
class Graphs:
    """``graphs`` maps a partition's number to its first row and its faiss.IndexHNSWSQ."""

    graphs: dict[int, tuple[int, Any]]

    @property
    def efforts(self) -> tuple[int, ...]:
        """Lengths of the candidate queue while a graph is walked, least first."""
        return 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024

    def prepare(self, efforts: Mapping[int, int]) -> tuple[tuple[int, Any, int], ...]:
        """What ``search`` takes: each of these partitions with its effort."""
        return tuple((*self.graphs[number], effort) for number, effort in efforts.items())

    def search(self, vectors: np.ndarray, graphs: Sequence[tuple[int, Any, int]], k: int) -> np.ndarray:
        """Candidate rows for the ``k`` nearest to each of ``vectors`` [q, d], int64 [q, m], -1 for none."""
        wanted = int(k * _OVERSAMPLING) + _EXTRA
        found = []
        for first, graph, effort in graphs:
            parameters = faiss.SearchParametersHNSW(efSearch=max(effort, wanted))
            rows = graph.search(vectors, wanted, params=parameters)[1]
            found.append(np.where(rows < 0, -1, rows + first))
        return np.concatenate(found, axis=1)

    def layout(self) -> dict[str, Any]:
        """What of this goes into an index's sidecar."""
        return {"graphs": sorted(self.graphs)}

    def arrays(self) -> dict[str, np.ndarray]:
        """What of this goes into an index's data file."""
        return {f"hnsw.{number}": faiss.serialize_index(graph) for number, (_, graph) in self.graphs.items()}

    def forget(self, partition: int) -> None:
        """Drop a partition's graph: it is searched in another way."""
        del self.graphs[partition]


def fit(store: Store, members: Sequence[int]) -> Graphs:
    """A graph over each of the partitions ``members`` (their numbers)."""
    graphs = {}
    for number in members:
        part = store.partitions[number]
        graph = faiss.IndexHNSWSQ(
            store.dimension, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT
        )
        graph.hnsw.efConstruction = CONSTRUCTION
        graph.train(store.vectors[part.start : part.stop])
        graph.add(store.vectors[part.start : part.stop])
        graphs[number] = part.start, graph
    return Graphs(graphs)


def restore(layout: Mapping[str, Any], arrays: Mapping[str, np.ndarray], store: Store) -> Graphs:
    """What ``layout`` and ``arrays`` kept. Raises ValueError where the parts do not belong together."""
    graphs = {}
    for number in layout["graphs"]:
        part, graph = store.partitions[number], faiss.deserialize_index(arrays[f"hnsw.{number}"])
        if (
            not isinstance(graph, faiss.IndexHNSWSQ)
            or graph.d != store.dimension
            or graph.ntotal != len(part)
        ):
            raise ValueError(
                f"graph {number} is a {type(graph).__name__} of {graph.ntotal} vectors of {graph.d}"
            )
        graphs[number] = part.start, graph
    return Graphs(graphs)
