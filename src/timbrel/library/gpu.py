"""Partitions on a GPU: CAGRA graphs and IVF-PQ, by cuVS, where ``faiss-gpu-cuvs`` is what is installed.

Every wheel of Faiss is imported as ``faiss``, and a GPU index that asks for cuVS may get the classic kernels
without a word. So ``probe`` says what this machine has, and each searcher says what ran. Nothing of this is
saved: a loaded index scans such partitions until it is rebuilt.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss as typed_faiss
import numpy as np

from timbrel.library.partitions import Store

KINDS = ("gpu_cagra", "gpu_ivf_pq")
_OVERSAMPLING, _EXTRA = 2, 12


@dataclass(frozen=True, slots=True)
class Capability:
    """What the installed Faiss can do here; ``reason`` says why not more."""

    gpus: int
    cuvs: bool
    reason: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The plans that can be had."""
        return KINDS if self.gpus and self.cuvs else ()


def probe(library: Any = typed_faiss) -> Capability:
    """Ask the installed Faiss (or the one given) what it has."""
    if not hasattr(library, "StandardGpuResources"):
        return Capability(
            0, False, "this faiss has no GPU part; install faiss-gpu-cuvs in place of faiss-cpu"
        )
    gpus = int(library.get_num_gpus())
    if not gpus:
        return Capability(0, False, "faiss sees no GPU; check the driver and CUDA_VISIBLE_DEVICES")
    if not hasattr(library, "GpuIndexCagra") or not library.should_use_cuvs(_config(library, "gpu_cagra")):
        return Capability(
            gpus, False, "this faiss has no cuVS, or the GPU is too old; install faiss-gpu-cuvs"
        )
    return Capability(gpus, True, f"faiss with cuVS sees {gpus} GPU")


@dataclass(frozen=True, slots=True)
class OnGpu:
    """``indexes`` maps a partition's number to its first row and its GPU index; ``ran``: "cuvs" or "classic"."""

    kind: str
    indexes: dict[int, tuple[int, Any]]
    ran: str
    library: Any
    resources: Any
    # GPU search is not thread-safe for one set of resources.
    _searching: Any = field(default_factory=threading.Lock, compare=False)

    @property
    def efforts(self) -> tuple[int, ...]:
        """CAGRA's internal candidates, or the cells that are read; least first."""
        return (64, 128, 256, 512) if self.kind == "gpu_cagra" else (1, 2, 4, 8, 16, 32)

    def prepare(self, efforts: Mapping[int, int]) -> Any:
        return tuple((*self.indexes[number], effort) for number, effort in efforts.items())

    def search(self, vectors: np.ndarray, prepared: Sequence[tuple[int, Any, int]], k: int) -> np.ndarray:
        """Candidate rows for the ``k`` nearest to each of ``vectors`` [q, d], int64 [q, m], -1 for none."""
        wanted = k * _OVERSAMPLING + _EXTRA
        found = []
        with self._searching:
            for first, index, effort in prepared:
                if self.kind == "gpu_cagra":
                    parameters = self.library.SearchParametersCagra()
                    parameters.itopk_size = max(effort, -(-wanted // 32) * 32)
                else:
                    parameters = self.library.SearchParametersIVF(nprobe=effort)
                rows = index.search(vectors, wanted, params=parameters)[1]
                found.append(np.where(rows < 0, -1, rows + first))
        return np.concatenate(found, axis=1)

    def layout(self) -> dict[str, Any]:
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def forget(self, partition: int) -> None:
        del self.indexes[partition]


def fit(kind: str, store: Store, members: Sequence[int], library: Any = typed_faiss) -> OnGpu:
    """An index on the first GPU over each of the partitions ``members`` (their numbers)."""
    config = _config(library, kind)
    resources = library.StandardGpuResources()
    indexes = {}
    for number in members:
        part = store.partitions[number]
        vectors = store.vectors[part.start : part.stop]
        shape = (store.dimension,)
        if kind == "gpu_ivf_pq":
            cells = max(1, min(32, len(part) // 64))
            shape = (store.dimension, cells, max(1, store.dimension // 4), 8)  # type: ignore[assignment]
        make = library.GpuIndexCagra if kind == "gpu_cagra" else library.GpuIndexIVFPQ
        index = make(resources, *shape, library.METRIC_INNER_PRODUCT, config)
        index.train(vectors)
        if kind == "gpu_ivf_pq":  # CAGRA's training is its building
            index.add(vectors)
        indexes[number] = part.start, index
    ran = "cuvs" if library.should_use_cuvs(config) else "classic"
    return OnGpu(kind, indexes, ran, library, resources)


def _config(library: Any, kind: str) -> Any:
    if kind == "gpu_cagra":
        config = library.GpuIndexCagraConfig()
        # The defaults lose recall in libraries above 100,000.
        config.graph_degree, config.intermediate_graph_degree = 64, 128
    else:
        config = library.GpuIndexIVFPQConfig()
        config.interleavedLayout = True  # cuVS knows no other
    config.use_cuvs = True  # opt-in since Faiss 1.15
    return config
