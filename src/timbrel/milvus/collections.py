"""One collection per bundle: its renders' stage-1 vectors with what a gate asks about them.

    row         INT64, primary: the row of the bundle's table of renders
    patch_id, family, bank    VARCHAR
    semitone    INT64: what sounds, to the nearest; ``NO_PITCH`` where nothing has a pitch
    octave      INT64: its place in the octave, 0-11; ``NO_OCTAVE``
    confidence  DOUBLE: how sure the pitch is; 0 without one
    vector      FLOAT_VECTOR [d], inner product: of l2-normalised vectors, the cosine

It is named for the bundle's content hash, so what is in it never changes its meaning; filling it again is harmless. The
alias ``timbrel`` is turned, in one step, to the collection that was filled last, once it is whole. Reads and writes are
of consistency level Strong: a search sees everything that was acknowledged before it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from timbrel.errors import BundleError, ConfigurationError, DeadlineExceeded, Unavailable
from timbrel.library.bundle import Bundle
from timbrel.library.gate import OCTAVE, semitone
from timbrel.milvus.expressions import NO_OCTAVE, NO_PITCH

ALIAS = "timbrel"
STRONG = "Strong"
METRIC = "IP"
# FLAT compares with every vector that the filter leaves: exact. The others are Milvus' own, with its defaults.
KINDS = ("FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX")
_BATCH = 2000
_LONGEST_NAME = 1024  # bytes

Progress = Callable[[int, int], None]


def name_of(bundle_id: str) -> str:
    """The collection of a bundle."""
    return f"timbrel_{bundle_id[:16]}"


class Milvus:
    """A connection. ``uri``: http(s)://host:port, or the path of a milvus-lite file, which one process can open."""

    def __init__(self, uri: str, *, token: str = "", seconds: float = 30.0) -> None:
        """``seconds``: the most that a call may take.

        Raises:
            ConfigurationError: pymilvus is not installed.
            Unavailable: the server does not answer, or the file is another process's.
        """
        try:
            import pymilvus
        except ImportError as error:
            raise ConfigurationError(
                "pymilvus is not installed: scripts/setup serve pipeline scale"
            ) from error
        # It prints a traceback for each error that it also raises.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.uri = uri
        self._seconds = seconds
        self._fault: type[Exception] = pymilvus.exceptions.MilvusException
        self._types: Any = pymilvus.DataType
        with self._asking():
            self._client: Any = pymilvus.MilvusClient(uri=uri, token=token, timeout=seconds)

    def close(self) -> None:
        self._client.close()

    def push(
        self,
        bundle: Bundle,
        *,
        kind: str = "FLAT",
        rebuild: bool = False,
        progress: Progress = lambda done, total: None,
    ) -> str:
        """Fill the collection of ``bundle`` and turn the alias to it; returns its name. Where it is whole already,
        nothing is written. ``rebuild``: make it anew. ``kind``: one of ``KINDS``.

        Raises Unavailable.
        """
        name = name_of(bundle.id)
        with self._asking():
            if rebuild and self._client.has_collection(name):
                self._drop(name)
            if not self._client.has_collection(name):
                self._create(name, bundle.index.dimension, kind)
        total = len(bundle.renders)
        if self.count(name) != total:
            for start in range(0, total, _BATCH):
                rows = np.arange(start, min(start + _BATCH, total))
                self.add(name, bundle, rows)
                progress(int(rows[-1]) + 1, total)
            with self._asking():
                self._client.flush(name, timeout=self._seconds)
            if self.count(name) != total:
                raise Unavailable(
                    f"{name} holds {self.count(name)} of {total} renders after it was filled: push again"
                )
        self._point(name)
        return name

    def add(self, name: str, bundle: Bundle, rows: np.ndarray) -> None:
        """Write the renders in ``rows`` under their own ids; those that are there are written over."""
        vectors = bundle.index.vectors(np.asarray(rows, dtype=np.int64))
        entities = [_entity(bundle, int(row), vector) for row, vector in zip(rows, vectors, strict=True)]
        with self._asking():
            self._client.upsert(name, entities, timeout=self._seconds)

    def remove(self, name: str, rows: Sequence[int]) -> None:
        """Take renders out; the others keep their ids."""
        with self._asking():
            self._client.delete(name, ids=[int(row) for row in rows], timeout=self._seconds)

    def count(self, name: str) -> int | None:
        """How many renders a collection holds, which is loaded for it; None where there is no such collection."""
        with self._asking():
            if not self._client.has_collection(name):
                return None
        self.load(name)
        with self._asking():
            counted = self._client.query(
                name, filter="", output_fields=["count(*)"], consistency_level=STRONG, timeout=self._seconds
            )
        return int(counted[0]["count(*)"])

    def load(self, name: str) -> None:
        """Bring a collection into the server's memory, where it can be searched; nothing where it is already."""
        with self._asking():
            self._client.load_collection(name, timeout=self._seconds)

    def live(self) -> str | None:
        """The collection that the alias names."""
        with self._asking():
            named = [name for name in self._client.list_collections() if name.startswith("timbrel_")]
            return next((n for n in named if ALIAS in self._client.list_aliases(n)["aliases"]), None)

    def kind(self, name: str) -> str:
        """How a collection is searched: one of ``KINDS``."""
        with self._asking():
            return str(self._client.describe_index(name, "vector")["index_type"])

    def search(
        self, name: str, vectors: np.ndarray, where: str, k: int, *, parameters: Mapping[str, Any]
    ) -> list[list[tuple[int, float]]]:
        """For each of ``vectors`` [q, d], (row, inner product) of the ``k`` nearest that ``where`` leaves."""
        with self._asking():
            found = self._client.search(
                name,
                data=[vector.tolist() for vector in vectors],
                anns_field="vector",
                filter=where,
                limit=k,
                output_fields=["row"],
                search_params={"metric_type": METRIC, "params": dict(parameters)},
                consistency_level=STRONG,
                timeout=self._seconds,
            )
        return [[(int(hit["row"]), float(hit["distance"])) for hit in hits] for hits in found]

    def vectors(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """float32 [n, d], in the order of ``rows``. Raises BundleError where one is not there."""
        with self._asking():
            found = self._client.get(
                name, ids=[int(row) for row in rows], output_fields=["row", "vector"], timeout=self._seconds
            )
        held = {int(each["row"]): each["vector"] for each in found}
        if set(map(int, rows)) - held.keys():
            raise BundleError(f"{name} lacks renders of the bundle: timbrel index push")
        return np.array([held[int(row)] for row in rows], dtype=np.float32)

    def _create(self, name: str, dimension: int, kind: str) -> None:
        types = self._types
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", types.INT64, is_primary=True)
        for field in ("patch_id", "family", "bank"):
            schema.add_field(field, types.VARCHAR, max_length=_LONGEST_NAME)
        for field in ("semitone", "octave"):
            schema.add_field(field, types.INT64)
        schema.add_field("confidence", types.DOUBLE)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=dimension)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type=kind, metric_type=METRIC)
        self._client.create_collection(
            name, schema=schema, index_params=index, consistency_level=STRONG, timeout=self._seconds
        )

    def _drop(self, name: str) -> None:
        if ALIAS in self._client.list_aliases(name)["aliases"]:
            self._client.drop_alias(ALIAS)
        self._client.drop_collection(name)

    def _point(self, name: str) -> None:
        before = self.live()
        with self._asking():
            if before is None:
                self._client.create_alias(name, ALIAS)
            elif before != name:
                self._client.alter_alias(name, ALIAS)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Milvus' errors as ours."""
        try:
            yield
        except self._fault as error:
            told = str(getattr(error, "message", error)).split("\n", 1)[0][:200]
            if "DEADLINE_EXCEEDED" in told or "deadline" in told.lower():
                raise DeadlineExceeded(
                    f"Milvus at {self.uri} took over {self._seconds:g} s: ask again"
                ) from error
            raise Unavailable(
                f"Milvus at {self.uri} does not do it ({told}): start it, or set TIMBREL_INDEX=bundle"
            ) from error


def _entity(bundle: Bundle, row: int, vector: np.ndarray) -> dict[str, Any]:
    render = bundle.renders[row]
    patch = bundle.patch(render.patch_id)
    pitched = math.isfinite(render.f0_midi)
    filed = semitone(render.f0_midi) if pitched else NO_PITCH
    sure = pitched and math.isfinite(render.f0_confidence)
    return {
        "row": row,
        "patch_id": patch.patch_id,
        "family": patch.family,
        "bank": patch.bank,
        "semitone": filed,
        "octave": filed % OCTAVE if pitched else NO_OCTAVE,
        "confidence": render.f0_confidence if sure else 0.0,
        "vector": vector.tolist(),
    }
