"""``engine.index.Index`` over a bundle's collection in Milvus."""

from __future__ import annotations

from typing import Self

import numpy as np

from timbrel.engine.index import Gate
from timbrel.errors import BundleError
from timbrel.library.bundle import Bundle
from timbrel.library.index import Found
from timbrel.milvus.collections import Milvus, name_of
from timbrel.milvus.expressions import expression

# Milvus gives no more hits than these; the search asks for more only on pages far down.
MOST = 16_384


class MilvusIndex:
    """The renders of one bundle. Thread-safe, as Milvus' client is."""

    def __init__(self, milvus: Milvus, bundle: Bundle) -> None:
        """Closes ``milvus`` when it is closed.

        Raises:
            BundleError: the bundle's collection is not there, or not whole.
            Unavailable: the server does not answer.
        """
        self._milvus = milvus
        self.collection = name_of(bundle.id)
        held, wanted = milvus.count(self.collection), len(bundle.renders)
        if held != wanted:
            raise BundleError(
                f"Milvus at {milvus.uri} holds {held or 0} of {wanted} renders of bundle {bundle.id[:12]}: "
                f"timbrel index push --bundle {bundle.folder}"
            )
        self._kind = milvus.kind(self.collection)

    @classmethod
    def open(cls, uri: str, bundle: Bundle, *, token: str = "", seconds: float = 30.0) -> Self:
        """Over the Milvus at ``uri``; raises as ``Milvus`` and the index do."""
        milvus = Milvus(uri, token=token, seconds=seconds)
        try:
            return cls(milvus, bundle)
        except BaseException:
            milvus.close()
            raise

    def query(self, vector: np.ndarray, gate: Gate, k: int) -> Found:
        return self.query_batch(vector[None], gate, k)[0]

    def query_batch(self, vectors: np.ndarray, gate: Gate, k: int) -> tuple[Found, ...]:
        """``query`` for each of ``vectors`` [q, d] behind one gate, in one call."""
        most = min(k, MOST)
        # HNSW's queue must hold what is asked for.
        parameters = {"ef": max(most, 64)} if self._kind == "HNSW" else {}
        answers = self._milvus.search(self.collection, vectors, expression(gate), most, parameters=parameters)
        return tuple(map(_found, answers))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return self._milvus.vectors(self.collection, rows.tolist())

    def close(self) -> None:
        self._milvus.close()


def _found(hits: list[tuple[int, float]]) -> Found:
    ids = np.array([row for row, _ in hits], dtype=np.int64)
    similar = np.array([product for _, product in hits], dtype=np.float32)
    distances = np.maximum(1 - similar, np.float32(0))
    order = np.lexsort((ids, distances))
    return Found(ids[order], distances[order])
