"""The pitch-conditioned index: one exact Faiss index per sounding semitone.

A render is filed under the pitch that sounds, ``semitone(f0_midi)``; renders without a pitch have a partition
of their own, which only an all-pitch query reads. A query names a pitch and a window in semitones and is
answered from the partitions within it, so an id outside the window cannot come back: nothing is filtered
after the fact.

On disk an index is a sidecar ``index.json`` and the data file it names, ``vectors-<12 hex of its
SHA-256>.bin``: the id table, then the serialized Faiss index of each partition. The sidecar is renamed into
place last, so an interrupted save leaves the former index whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from timbrel.errors import BundleError, DataError, InputError
from timbrel.files import atomic_write, sha256_of

SIDECAR = "index.json"
FORMAT = 1
METRIC = "cosine"
# Vectors must be l2-normalised: then the inner product is the cosine. Half-precision encoders stay within
# this.
NORM_TOLERANCE = 1e-2


def semitone(midi: float) -> int:
    """The semitone nearest to a fractional MIDI pitch; halves go up, so that the rule is the same everywhere."""
    return math.floor(midi + 0.5)


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest entries, nearest first: ``ids`` int64 [n], ``distances`` float32 [n] (1 − cosine)."""

    ids: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True, slots=True)
class _Partition:
    """One semitone (``None``: no pitch). Row i of ``flat`` belongs to ``ids[i]``."""

    semitone: int | None
    ids: np.ndarray
    flat: Any  # faiss.IndexFlatIP; faiss ships no types


class PitchIndex:
    """Immutable once made. Searching is thread-safe: Faiss' CPU search is, and nothing else is written."""

    def __init__(self, partitions: Mapping[int | None, _Partition], *, dimension: int, encoder: str) -> None:
        self._partitions = dict(partitions)
        self.dimension = dimension
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
        if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
            raise DataError(
                f"index vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}"
            )
        count, dimension = vectors.shape
        keys = np.arange(count, dtype=np.int64) if ids is None else np.asarray(ids)
        if keys.shape != (count,) or keys.dtype != np.int64:
            raise DataError(f"index ids must be int64 [{count}], not {keys.dtype} {list(keys.shape)}")
        if keys.min() < 0 or len(np.unique(keys)) != count:
            raise DataError("index ids must be unique and not negative")
        pitches = np.asarray(f0_midi, dtype=np.float64)
        if pitches.shape != (count,) or np.isinf(pitches).any():
            raise DataError(f"f0_midi must hold {count} finite numbers (or NaN where nothing has a pitch)")
        if not np.isfinite(vectors).all():
            raise DataError("index vectors must be finite")
        worst = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
        if worst > NORM_TOLERANCE:
            raise DataError(f"index vectors must be l2-normalised; one's length is off by {worst:.3g}")

        filed: dict[int | None, list[int]] = {}
        for row, pitch in enumerate(pitches):
            filed.setdefault(None if math.isnan(pitch) else semitone(pitch), []).append(row)
        partitions = {}
        for key, rows in filed.items():
            flat = faiss.IndexFlatIP(dimension)
            flat.add(np.ascontiguousarray(vectors[rows]))
            partitions[key] = _Partition(key, keys[rows], flat)
        return cls(partitions, dimension=dimension, encoder=encoder)

    def __len__(self) -> int:
        return sum(len(part.ids) for part in self._partitions.values())

    @property
    def semitones(self) -> tuple[int, ...]:
        """The semitones that hold anything, ascending."""
        return tuple(sorted(key for key in self._partitions if key is not None))

    def ids_within(self, pitch: float | None, window: int) -> np.ndarray:
        """Every id that a query with this gate may return, int64, ascending."""
        parts = [part.ids for part in self._open(pitch, window)]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def query(self, vector: np.ndarray, *, pitch: float | None, window: int, k: int) -> Found:
        """The ``k`` nearest entries among those within ``window`` semitones of ``pitch``; all of them for
        ``None``.

        ``vector`` is float32 [d], l2-normalised. Fewer than ``k`` come back when the gate leaves fewer. Equal
        distances are ordered by id.

        Raises:
            InputError: a vector of another dtype, dimension or length, or not finite; ``k`` or ``window`` too
            small.
        """
        if vector.dtype != np.float32:
            raise InputError(f"the query vector must be float32, not {vector.dtype}")
        if vector.shape != (self.dimension,):
            raise InputError(
                f"the query vector has shape {list(vector.shape)}; the index needs [{self.dimension}]"
            )
        if not np.isfinite(vector).all():
            raise InputError("the query vector holds values that are not finite")
        if abs(float(np.linalg.norm(vector)) - 1) > NORM_TOLERANCE:
            raise InputError("the query vector is not l2-normalised; divide it by its length")
        if k < 1:
            raise InputError(f"k is {k}; ask for at least 1")

        found_ids, found_similarities = [], []
        for part in self._open(pitch, window):
            similarities, rows = part.flat.search(vector[None], min(k, len(part.ids)))
            found_ids.append(part.ids[rows[0]])
            found_similarities.append(similarities[0])
        if not found_ids:
            return Found(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        ids = np.concatenate(found_ids)
        distances = np.maximum(1 - np.concatenate(found_similarities), np.float32(0))
        order = np.lexsort((ids, distances))[:k]
        return Found(ids[order], distances[order])

    def _open(self, pitch: float | None, window: int) -> Iterator[_Partition]:
        """The partitions that the gate opens."""
        if pitch is None:
            yield from self._partitions.values()
            return
        if not math.isfinite(pitch):
            raise InputError(f"the pitch is {pitch}; give a finite MIDI number, or none for all pitches")
        if window < 0:
            raise InputError(f"the window is {window} semitones; it cannot be negative")
        centre = semitone(pitch)
        for key in range(centre - window, centre + window + 1):
            if key in self._partitions:
                yield self._partitions[key]

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``; a former one there stays valid until the new one is complete."""
        folder.mkdir(parents=True, exist_ok=True)
        ordered = [self._partitions[key] for key in self.semitones]
        if None in self._partitions:
            ordered.append(self._partitions[None])
        chunks = [np.concatenate([part.ids for part in ordered]).astype("<i8").tobytes()]
        entries = []
        offset = len(chunks[0])
        for part in ordered:
            blob = faiss.serialize_index(part.flat).tobytes()
            entry = {"semitone": part.semitone, "count": len(part.ids), "offset": offset, "bytes": len(blob)}
            entries.append(entry)
            chunks.append(blob)
            offset += len(blob)
        part_file = folder / "vectors.bin.part"
        with atomic_write(part_file) as handle:
            handle.writelines(chunks)
        digest = sha256_of(part_file)
        data = part_file.rename(folder / f"vectors-{digest[:12]}.bin")
        sidecar = {
            "format": FORMAT,
            "file": data.name,
            "sha256": digest,
            "bytes": offset,
            "metric": METRIC,
            "dimension": self.dimension,
            "count": len(self),
            "encoder": self.encoder,
            "partitions": entries,
        }
        with atomic_write(folder / SIDECAR) as handle:
            handle.write((json.dumps(sidecar, indent=1) + "\n").encode())
        for stale in folder.glob("vectors-*.bin"):
            if stale != data:
                stale.unlink()

    @classmethod
    def load(cls, folder: Path, *, encoder: str | None = None) -> PitchIndex:
        """Read an index that ``save`` wrote. With ``encoder`` it must have been made by that model.

        Raises:
            BundleError: missing, torn, of another format or metric, or made by another encoder.
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
            return cls(_partitions(data, sidecar), dimension=sidecar["dimension"], encoder=sidecar["encoder"])
        except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BundleError(f"the index in {folder} cannot be read ({error}); rebuild the index") from error


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The contents of ``index.json``, its fields and format checked. Raises BundleError."""
    path = folder / SIDECAR
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; build the index first") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not an index sidecar ({error}); rebuild the index") from error
    expected = {
        "format": int, "file": str, "sha256": str, "bytes": int, "metric": str, "dimension": int, "count":
        int, "encoder": str, "partitions": list,
    }  # fmt: skip
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not an index sidecar; rebuild the index")
    for name, kind in expected.items():
        if type(content.get(name)) is not kind:
            raise BundleError(f"{path} is not an index sidecar (field {name!r}); rebuild the index")
    if content["format"] != FORMAT or content["metric"] != METRIC:
        raise BundleError(
            f"{path} has format {content['format']} and metric {content['metric']}; this version reads "
            f"format {FORMAT} and {METRIC}; rebuild the index"
        )
    return content


def _partitions(data: bytes, sidecar: Mapping[str, Any]) -> dict[int | None, _Partition]:
    count = sidecar["count"]
    ids = np.frombuffer(data, dtype="<i8", count=count).astype(np.int64)
    partitions: dict[int | None, _Partition] = {}
    first = 0
    for entry in sidecar["partitions"]:
        blob = np.frombuffer(data, dtype=np.uint8, count=entry["bytes"], offset=entry["offset"])
        flat = faiss.deserialize_index(blob)
        if not isinstance(flat, faiss.IndexFlatIP):
            raise ValueError(f"partition {entry['semitone']} is a {type(flat).__name__}")
        if flat.d != sidecar["dimension"] or flat.ntotal != entry["count"]:
            raise ValueError(f"partition {entry['semitone']} holds {flat.ntotal} vectors of {flat.d}")
        rows = ids[first : first + entry["count"]]
        partitions[entry["semitone"]] = _Partition(entry["semitone"], rows, flat)
        first += entry["count"]
    if first != count or len(partitions) != len(sidecar["partitions"]):
        raise ValueError(f"the partitions hold {first} vectors where the sidecar says {count}")
    return partitions
