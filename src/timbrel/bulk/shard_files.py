"""A shard on disk: one .npz with what the library keeps of some patches, what was dropped and why, and of which inputs.

It is written whole or not at all, and every part of it has a checksum, so a file that can be read is a shard that is
done. Its name begins with its key, which is the hash of all that it was made from.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.files import atomic_write
from timbrel.library.describing import DescribedPatch
from timbrel.library.tables import Patch, Render

KEY_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A patch that the library does not hold. ``reason``: as of ``notes.filing.Dropped``."""

    patch_id: str
    name: str
    bank: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """``pictures`` float32 [patches, 3, 24, 40]: of each patch at three keys (``notes.selection.picture``), by which
    copies are told; NaN throughout where it was silent at one.
    """

    key: str
    patches: tuple[DescribedPatch, ...]
    pictures: np.ndarray
    drops: tuple[Drop, ...]
    silent_renders: int


def path_of(folder: Path, key: str) -> Path:
    return folder / f"{key[:KEY_DIGITS]}.npz"


def write(path: Path, shard: Shard) -> None:
    """Write ``shard``, whole or not at all."""
    patches = shard.patches
    about = {
        "key": shard.key,
        "silent_renders": shard.silent_renders,
        "patches": [
            {"patch": asdict(each.patch), "renders": [asdict(r) for r in each.renders], "on_map": each.on_map}
            for each in patches
        ],
        "drops": [asdict(drop) for drop in shard.drops],
    }
    with atomic_write(path) as handle:
        np.savez(
            handle,
            about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            stage1=_joined([each.stage1 for each in patches], np.float32),
            stage2=_joined([each.stage2 for each in patches], np.float16),
            pictures=shard.pictures,
            previews=np.frombuffer(b"".join(each.preview for each in patches), dtype=np.uint8),
            preview_bytes=np.array([len(each.preview) for each in patches], dtype=np.int64),
        )


def read(path: Path, key: str) -> Shard | None:
    """The shard with this key; None where there is none, or the file is torn or of other inputs."""
    try:
        # numpy leaves a file open that is no archive.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as held:
            parts = {name: held[name] for name in held.files}
        about = json.loads(parts["about"].tobytes())
        if about["key"] != key:
            return None
        return Shard(
            key=key,
            patches=tuple(_patches(about["patches"], parts)),
            pictures=parts["pictures"],
            drops=tuple(Drop(**drop) for drop in about["drops"]),
            silent_renders=about["silent_renders"],
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _joined(parts: Sequence[np.ndarray], dtype: type[np.floating]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype)


def _patches(told: Sequence[Mapping[str, Any]], parts: Mapping[str, np.ndarray]) -> Iterator[DescribedPatch]:
    ends = np.cumsum(parts["preview_bytes"])
    row = 0
    for each, size, end in zip(told, parts["preview_bytes"], ends, strict=True):
        stop = row + len(each["renders"])
        yield DescribedPatch(
            patch=Patch(**each["patch"]),
            renders=tuple(Render(**render) for render in each["renders"]),
            stage1=parts["stage1"][row:stop],
            stage2=parts["stage2"][row:stop],
            preview=parts["previews"][end - size : end].tobytes(),
            on_map=each["on_map"],
        )
        row = stop
