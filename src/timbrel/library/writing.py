"""Writes a library's folder from its patches, one after the other: vectors into memory maps, the rest in a stream.

patches.csv, renders.csv      see ``tables``
stage1.npy, stage2.npy        float32 [renders, d1], float16 [renders, d2]
previews.zip, library.json    see ``previews``; SHA-256 of the timbre encoder
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from timbrel.errors import DataError
from timbrel.files import atomic_write
from timbrel.library import previews
from timbrel.library.describing import DescribedPatch
from timbrel.library.tables import Record, write_table


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFigures:
    """What was built. ``off_map``: patches without a render at the map's pitches, placed by the renders they
    have.
    """

    patches: int
    renders: int
    unpitched_renders: int
    off_map: int
    preview_bytes: int


def write_library(
    out: Path, patches: Iterable[DescribedPatch], *, renders: int, encoder: str
) -> LibraryFigures:
    """Write ``patches``, which have ``renders`` renders in all, into the folder ``out``.

    ``encoder``: SHA-256 of the timbre encoder, kept with the vectors.

    Raises:
        DataError: there is none, or they have another number of renders.
    """
    out.mkdir(parents=True, exist_ok=True)
    counted = dict.fromkeys(("patches", "renders", "unpitched_renders", "off_map"), 0)
    with (
        atomic_write(out / "patches.csv") as patch_lines,
        atomic_write(out / "renders.csv") as render_lines,
        _array(out / "stage1.npy", np.float32, renders) as stage1,
        _array(out / "stage2.npy", np.float16, renders) as stage2,
    ):

        def filed() -> Iterator[tuple[str, bytes]]:
            for each in patches:
                start = counted["renders"]
                if start + len(each.renders) > renders:
                    raise DataError(f"there are more renders than the {renders} announced; build it again")
                numbered = [replace(render, row=start + render.row) for render in each.renders]
                _append(patch_lines, [each.patch], first=not counted["patches"])
                _append(render_lines, numbered, first=not start)
                stage1.put(start, each.stage1)
                stage2.put(start, each.stage2)
                counted["patches"] += 1
                counted["renders"] += len(numbered)
                counted["unpitched_renders"] += sum(math.isnan(render.f0_midi) for render in numbered)
                counted["off_map"] += not each.on_map
                yield each.patch.patch_id, each.preview

        previews.write_previews(out / "previews.zip", filed())
        if counted["renders"] != renders or not renders:
            raise DataError(f"there are {counted['renders']} renders where {renders} were announced")
    with atomic_write(out / "library.json") as handle:
        handle.write((json.dumps({"encoder": encoder}) + "\n").encode())
    return LibraryFigures(**counted, preview_bytes=(out / "previews.zip").stat().st_size)


def _append(handle: BinaryIO, records: Sequence[Record], *, first: bool) -> None:
    table = write_table(records)
    handle.write(table if first else table.partition(b"\n")[2])


class _Rows:
    """An array on disk whose width is that of the first rows put into it."""

    def __init__(self, path: Path, dtype: type[np.floating], count: int) -> None:
        self._path, self._dtype, self._count = path, dtype, count
        self.mapped: np.memmap | None = None

    def put(self, start: int, rows: np.ndarray) -> None:
        if self.mapped is None:
            shape = (self._count, rows.shape[1])
            self.mapped = np.lib.format.open_memmap(self._path, mode="w+", dtype=self._dtype, shape=shape)
        self.mapped[start : start + len(rows)] = rows


@contextmanager
def _array(path: Path, dtype: type[np.floating], count: int) -> Iterator[_Rows]:
    """Rows that are put into a file beside ``path``, which takes its place at the end."""
    part = path.with_name(f".{path.name}.part")
    rows = _Rows(part, dtype, count)
    try:
        yield rows
        if rows.mapped is not None:
            rows.mapped.flush()
            rows.mapped = None
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
