"""An index on disk: a sidecar ``index.json`` and the data file it names, ``vectors-<12 hex of its SHA-256>.bin``.

The data file holds, one after the other, the sections that the sidecar lists with their places: ids and vectors
in partition order. The sidecar is renamed into place last, so an interrupted save leaves the former index whole.

Format 1, which had a serialized Faiss index per partition in place of the vectors, is still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from timbrel.errors import BundleError
from timbrel.files import atomic_write, sha256_of
from timbrel.library.partitions import Partition, Store

SIDECAR = "index.json"
FORMAT = 2
METRIC = "cosine"
_FIELDS: Mapping[str, type] = {
    "format": int, "file": str, "sha256": str, "bytes": int, "metric": str, "dimension": int, "count": int,
    "encoder": str, "partitions": list,
}  # fmt: skip


def write(folder: Path, store: Store, *, encoder: str) -> None:
    """Write the index into ``folder``; a former one there stays valid until the new one is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = {
        "ids": store.ids.astype("<i8", copy=False),
        "vectors": store.vectors.astype("<f4", copy=False),
    }
    part_file = folder / "vectors.bin.part"
    with atomic_write(part_file) as handle:
        for array in sections.values():
            handle.write(array.data)
    digest = sha256_of(part_file)
    data = part_file.rename(folder / f"vectors-{digest[:12]}.bin")
    sidecar = {
        "format": FORMAT,
        "file": data.name,
        "sha256": digest,
        "bytes": data.stat().st_size,
        "metric": METRIC,
        "dimension": store.dimension,
        "count": len(store.ids),
        "encoder": encoder,
        "partitions": [{"semitone": part.semitone, "count": len(part)} for part in store.partitions],
    }
    with atomic_write(folder / SIDECAR) as handle:
        handle.write((json.dumps(sidecar, indent=1) + "\n").encode())
    for stale in folder.glob("vectors-*.bin"):
        if stale != data:
            stale.unlink()


def read(folder: Path, *, encoder: str | None) -> tuple[Store, str]:
    """The store that ``write`` wrote, and the encoder of its vectors.

    Raises:
        BundleError: missing, torn, of another format or metric, or not made by ``encoder``.
    """
    sidecar = read_sidecar(folder)
    if encoder is not None and sidecar["encoder"] != encoder:
        raise BundleError(
            f"the index in {folder} was made by encoder {sidecar['encoder'][:12]}…, not by "
            f"{encoder[:12]}…; rebuild the index with this encoder"
        )
    path = folder / sidecar["file"]
    if path.parent != folder or not path.is_file():
        raise BundleError(
            f"the index data file {sidecar['file']} is missing from {folder}; rebuild the index"
        )
    data = path.read_bytes()
    # A short file is told apart from a changed one only for the message's sake.
    if len(data) != sidecar["bytes"]:
        raise BundleError(
            f"{path} has {len(data)} bytes where its sidecar says {sidecar['bytes']}; rebuild the index"
        )
    if sha256_of(path) != sidecar["sha256"]:
        raise BundleError(f"{path} does not match the hash in its sidecar; rebuild the index")
    try:
        store = (_read_format_1 if sidecar["format"] == 1 else _read_store)(data, sidecar)
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"the index in {folder} cannot be read ({error}); rebuild the index") from error
    return store, sidecar["encoder"]


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The contents of ``index.json``, its fields and format checked. Raises BundleError."""
    path = folder / SIDECAR
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; build the index first") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not an index sidecar ({error}); rebuild the index") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not an index sidecar; rebuild the index")
    for name, kind in _FIELDS.items():
        if type(content.get(name)) is not kind:
            raise BundleError(f"{path} is not an index sidecar (field {name!r}); rebuild the index")
    if content["format"] not in range(1, FORMAT + 1) or content["metric"] != METRIC:
        raise BundleError(
            f"{path} has format {content['format']} and metric {content['metric']}; this version reads "
            f"formats up to {FORMAT} and {METRIC}; rebuild the index"
        )
    return content


def _read_store(data: bytes, sidecar: Mapping[str, Any]) -> Store:
    count, dimension = sidecar["count"], sidecar["dimension"]
    if len(data) != count * (8 + 4 * dimension):
        raise ValueError(f"{len(data)} bytes do not hold {count} vectors of {dimension}")
    ids = np.frombuffer(data, dtype="<i8", count=count)
    vectors = np.frombuffer(data, dtype="<f4", offset=ids.nbytes).reshape(count, dimension)
    return _store(vectors, ids, sidecar)


def _read_format_1(data: bytes, sidecar: Mapping[str, Any]) -> Store:
    ids = np.frombuffer(data, dtype="<i8", count=sidecar["count"])
    blocks = []
    for entry in sidecar["partitions"]:
        blob = np.frombuffer(data, dtype=np.uint8, count=entry["bytes"], offset=entry["offset"])
        flat = faiss.deserialize_index(blob)
        if not isinstance(flat, faiss.IndexFlatIP):
            raise ValueError(f"partition {entry['semitone']} is a {type(flat).__name__}")
        if flat.d != sidecar["dimension"] or flat.ntotal != entry["count"]:
            raise ValueError(f"partition {entry['semitone']} holds {flat.ntotal} vectors of {flat.d}")
        blocks.append(flat.reconstruct_n(0, flat.ntotal))
    return _store(np.concatenate(blocks), ids, sidecar)


def _store(vectors: np.ndarray, ids: np.ndarray, sidecar: Mapping[str, Any]) -> Store:
    partitions: list[Partition] = []
    start = 0
    for entry in sidecar["partitions"]:
        partitions.append(Partition(entry["semitone"], start, start + entry["count"]))
        start += entry["count"]
    keys = [part.semitone for part in partitions]
    pitched = [key for key in keys if key is not None]
    if start != len(ids) or keys[: len(pitched)] != sorted(set(pitched)) or len(keys) > len(pitched) + 1:
        raise ValueError(f"the partitions hold {start} vectors where the sidecar says {len(ids)}")
    return Store(vectors.astype(np.float32), ids.astype(np.int64), tuple(partitions))
