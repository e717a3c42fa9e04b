"""An index on disk: a sidecar ``index.json`` and the data file it names, ``vectors-<12 hex of its SHA-256>.bin``.

The data file holds, one after the other, the sections that the sidecar lists with their places: ids and vectors
in partition order, and what the partitions' plans need: arrays, and Faiss indexes in Faiss' own form. The sidecar is
renamed into place last, so an interrupted save leaves the former index whole.

Format 1, which had a serialized Faiss index per partition in place of the vectors, is still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from timbrel.errors import BundleError
from timbrel.files import atomic_write, sha256_of
from timbrel.library import gpu
from timbrel.library.partitions import Partition, Store
from timbrel.library.plans import FLAT, PartitionPlan, Plan, restore

SIDECAR = "index.json"
FORMAT = 2
METRIC = "cosine"
_FIELDS: Mapping[str, type] = {
    "format": int, "file": str, "sha256": str, "bytes": int, "metric": str, "dimension": int, "count": int,
    "encoder": str, "partitions": list,
}  # fmt: skip


def write(folder: Path, store: Store, plan: Plan, *, encoder: str) -> None:
    """Write the index into ``folder``; a former one there stays valid until the new one is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = _without_gpu(plan)
    sections = {
        "ids": store.ids.astype("<i8", copy=False),
        "vectors": store.vectors.astype("<f4", copy=False),
    }
    for searcher in plan.searchers.values():
        sections |= searcher.arrays()
    places = []
    offset = 0
    part_file = folder / "vectors.bin.part"
    with atomic_write(part_file) as handle:
        for name, array in sections.items():
            handle.write(array.data)
            places.append({"name": name, "offset": offset, "bytes": array.nbytes, "shape": list(array.shape)})
            offset += array.nbytes
    digest = sha256_of(part_file)
    data = part_file.rename(folder / f"vectors-{digest[:12]}.bin")
    sidecar = {
        "format": FORMAT,
        "file": data.name,
        "sha256": digest,
        "bytes": offset,
        "metric": METRIC,
        "dimension": store.dimension,
        "count": len(store.ids),
        "encoder": encoder,
        "target_recall": plan.target_recall,
        "partitions": [
            {"semitone": part.semitone, "count": len(part), "plan": each.kind}
            | ({"efforts": each.efforts, "recalls": each.recalls} if each.kind != FLAT else {})
            for part, each in zip(store.partitions, plan.partitions, strict=True)
        ],
        "searchers": {kind: searcher.layout() for kind, searcher in plan.searchers.items()},
        "sections": places,
    }
    with atomic_write(folder / SIDECAR) as handle:
        handle.write((json.dumps(sidecar, indent=1) + "\n").encode())
    for stale in folder.glob("vectors-*.bin"):
        if stale != data:
            stale.unlink()


def _without_gpu(plan: Plan) -> Plan:
    """What another machine can read: what is on the GPU is scanned there."""
    kept = {kind: searcher for kind, searcher in plan.searchers.items() if kind not in gpu.KINDS}
    partitions = tuple(PartitionPlan(FLAT) if each.kind in gpu.KINDS else each for each in plan.partitions)
    return replace(plan, partitions=partitions, searchers=kept)


def read(folder: Path, *, encoder: str | None) -> tuple[Store, Plan, str]:
    """What ``write`` wrote, and the encoder of its vectors.

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
        store, plan = (_read_format_1 if sidecar["format"] == 1 else _read_sections)(data, sidecar)
    except (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise BundleError(f"the index in {folder} cannot be read ({error}); rebuild the index") from error
    return store, plan, sidecar["encoder"]


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


def _read_sections(data: bytes, sidecar: Mapping[str, Any]) -> tuple[Store, Plan]:
    arrays = {
        place["name"]: np.frombuffer(data, np.uint8, count=place["bytes"], offset=place["offset"])
        for place in sidecar["sections"]
    }
    count, dimension = sidecar["count"], sidecar["dimension"]
    ids = arrays.pop("ids").view("<i8")
    store = _store(arrays.pop("vectors").view("<f4").reshape(count, dimension), ids, sidecar)
    kept = tuple(
        PartitionPlan(entry["plan"], tuple(entry["efforts"]), tuple(entry["recalls"]))
        if entry["plan"] != FLAT
        else PartitionPlan(FLAT)
        for entry in sidecar["partitions"]
    )
    searchers = {kind: restore(kind, layout, arrays, store) for kind, layout in sidecar["searchers"].items()}
    for number, each in enumerate(kept):
        if each.kind != FLAT:
            searchers[each.kind].prepare({number: 1})  # KeyError: it was never filed
    return store, Plan(kept, searchers, float(sidecar["target_recall"]))


def _read_format_1(data: bytes, sidecar: Mapping[str, Any]) -> tuple[Store, Plan]:
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
    store = _store(np.concatenate(blocks), ids, sidecar)
    return store, Plan((PartitionPlan(FLAT),) * len(store.partitions), {})


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
