"""Builds the library from the renders of the patches stage, and the index over it.

data/patches (split library) ─► describing ─► writing ─► data/library ─► data/index
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timbrel.errors import DataError
from timbrel.library.describing import PatchRenders, describe_patches
from timbrel.library.index import PitchIndex
from timbrel.library.plans import AUTO, TARGET_RECALL
from timbrel.library.tables import read_patches, read_renders
from timbrel.library.vectors import RunModel
from timbrel.library.writing import LibraryFigures, write_library
from timbrel.notes.noteset import NoteSet

if TYPE_CHECKING:
    from timbrel.codec.runtime import Codec

SPLIT = "library"

Progress = Callable[[int, int], None]


def build_library(
    folder: Path,
    out: Path,
    run: RunModel,
    codec: Codec,
    *,
    encoder: str,
    preview_seconds: float,
    preview_pitch: int,
    progress: Progress = lambda done, total: None,
) -> LibraryFigures:
    """Read the patches of ``folder`` (a NoteSet with its patches.csv), write the library into ``out``.

    Args:
        run: runs the timbre and the map encoder.
        codec: the codec that the map was trained on.
        encoder: SHA-256 of the timbre encoder, kept with the vectors.
        preview_pitch: MIDI pitch; each patch's preview is its render that sounds nearest to it.
        progress: called with (renders done, renders in all).

    Raises:
        DataError: the folder is not what the patches stage makes, or holds nothing for the library.
    """
    notes = NoteSet.open(folder)
    lines = {line["patch_id"]: line for line in _patch_lines(folder / "patches.csv")}
    rows = notes.select(split=SPLIT)
    if not len(rows):
        raise DataError(f"{folder} holds no render of split {SPLIT!r}; run the patches stage")
    missing = {notes.notes[row].instrument for row in rows} - lines.keys()
    if missing:
        raise DataError(f"{folder}/patches.csv lacks {len(missing)} patches, {min(missing)} among them")
    described = describe_patches(
        _renders(notes, rows, lines),
        run,
        codec,
        preview_seconds=preview_seconds,
        preview_pitch=preview_pitch,
        progress=lambda done: progress(done, len(rows)),
    )
    figures = write_library(out, described, renders=len(rows), encoder=encoder)
    # What a bundle will refuse is better refused here.
    read_renders(out / "renders.csv", read_patches(out / "patches.csv"))
    return figures


def _renders(
    notes: NoteSet, rows: np.ndarray, lines: Mapping[str, Mapping[str, str]]
) -> Iterator[PatchRenders]:
    """The renders of each patch, which the patches stage has written one after the other."""
    for patch_id, members in groupby(rows.tolist(), key=lambda row: notes.notes[row].instrument):
        own = list(members)
        yield PatchRenders(lines[patch_id], [notes.notes[row] for row in own], notes.audio[own])


def build_index(library: Path, *, plan: str = AUTO, target_recall: float = TARGET_RECALL) -> PitchIndex:
    """The pitch-conditioned index over a library's stage-1 vectors; plans as for ``PitchIndex.build``.

    Raises:
        DataError: the vectors are not fit for an index.
        ConfigurationError: there is no such plan.
        BundleError: the tables are missing or damaged.
    """
    renders = read_renders(library / "renders.csv", read_patches(library / "patches.csv"))
    pitches = np.array([render.f0_midi for render in renders])
    encoder = json.loads((library / "library.json").read_text())["encoder"]
    vectors = np.load(library / "stage1.npy", allow_pickle=False)
    return PitchIndex.build(vectors, pitches, encoder=encoder, plan=plan, target_recall=target_recall)


def _patch_lines(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run the patches stage") from error
