"""Builds the library: every render's vectors, every patch's place on the map, and the previews.

    data/patches (split library) ─► clip ─► timbre encoder ─► stage1.npy, stage2.npy
                                 ─► codec encoder ─► map encoder ─► patches.csv (x, y)
                                 ─► previews.zip

The models run as they run in serving, so a library's vectors and a query's come from the same graphs.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timbrel.encoders import frontend
from timbrel.errors import DataError
from timbrel.files import atomic_write
from timbrel.library import previews, vectors
from timbrel.library.index import PitchIndex, semitone
from timbrel.library.plans import AUTO, TARGET_RECALL
from timbrel.library.tables import Patch, Render, read_patches, read_renders, write_table
from timbrel.library.vectors import RunModel
from timbrel.notes.noteset import SAMPLE_RATE, Note, NoteSet

if TYPE_CHECKING:
    from timbrel.codec.runtime import Codec

BATCH = 32
SPLIT = "library"
# A place on the map is measured at the pitches that the map was trained on.
MAP_PITCHES = range(48, 73)

Progress = Callable[[int, int], None]


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
    chosen = [notes.notes[row] for row in rows]
    if not chosen:
        raise DataError(f"{folder} holds no render of split {SPLIT!r}; run the patches stage")
    missing = {note.instrument for note in chosen} - lines.keys()
    if missing:
        raise DataError(f"{folder}/patches.csv lacks {len(missing)} patches, {min(missing)} among them")

    by_patch: dict[str, list[int]] = {}
    for number, note in enumerate(chosen):
        by_patch.setdefault(note.instrument, []).append(number)
    placing = {patch_id: _placing(members, chosen) for patch_id, members in by_patch.items()}
    stage1, stage2, positions = _coordinates(
        notes, rows, set().union(*placing.values()), run, codec, progress
    )
    patches = []
    for patch_id, members in placing.items():
        x, y = positions[members].mean(axis=0, dtype=np.float64)
        patches.append(_patch(lines[patch_id], float(x), float(y)))
    renders = [_render(number, note) for number, note in enumerate(chosen)]

    out.mkdir(parents=True, exist_ok=True)
    _write(out / "patches.csv", write_table(patches))
    _write(out / "renders.csv", write_table(renders))
    _save(out / "stage1.npy", stage1)
    _save(out / "stage2.npy", stage2.astype(np.float16))
    samples = {
        patch_id: int(rows[min(members, key=lambda number: _pitch_gap(chosen[number], preview_pitch))])
        for patch_id, members in by_patch.items()
    }
    previews.write_previews(out / "previews.zip", _previews(notes, samples, preview_seconds))
    _write(out / "library.json", (json.dumps({"encoder": encoder}) + "\n").encode())
    # What a bundle will refuse is better refused here.
    read_renders(out / "renders.csv", read_patches(out / "patches.csv"))
    return LibraryFigures(
        patches=len(patches),
        renders=len(renders),
        unpitched_renders=sum(np.isnan(note.f0_midi) for note in chosen),
        off_map=sum(not _on_map(chosen[members[0]]) for members in placing.values()),
        preview_bytes=(out / "previews.zip").stat().st_size,
    )


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


def _placing(members: list[int], notes: Sequence[Note]) -> list[int]:
    """The renders of a patch that say where it lies: those at the map's pitches; all, when there are none."""
    return [number for number in members if _on_map(notes[number])] or members


def _coordinates(
    notes: NoteSet, rows: np.ndarray, placing: set[int], run: RunModel, codec: Codec, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """stage1 [n, d1], stage2 [n, d2] and map positions [n, 2] (of ``placing``, else NaN) of the rows, float32."""
    parts = []
    positions = np.full((len(rows), 2), np.nan, dtype=np.float32)
    for start in range(0, len(rows), BATCH):
        audio = notes.float_audio(rows[start : start + BATCH])
        parts.append(vectors.embed_clips(run, np.stack([frontend.clip(note) for note in audio])))
        placed = [number for number in range(len(audio)) if start + number in placing]
        if placed:
            places = vectors.map_positions(run, codec, audio[placed])
            positions[[start + number for number in placed]] = places
        progress(start + len(audio), len(rows))
    stage1, stage2 = (np.concatenate(column) for column in zip(*parts, strict=True))
    return stage1, stage2, positions


def _previews(notes: NoteSet, samples: Mapping[str, int], seconds: float) -> Iterator[tuple[str, bytes]]:
    """(patch id, MP3), in the order of ``samples``; libsndfile encodes outside the interpreter's lock."""

    def encode(row: int) -> bytes:
        return previews.encode(notes.float_audio([row])[0], SAMPLE_RATE, seconds=seconds)

    with ThreadPoolExecutor() as pool:
        yield from zip(samples, pool.map(encode, samples.values()), strict=True)


def _on_map(note: Note) -> bool:
    return not np.isnan(note.f0_midi) and semitone(note.f0_midi) in MAP_PITCHES


def _pitch_gap(note: Note, pitch: int) -> float:
    """Semitones between what sounds (what was pressed, for want of a pitch) and ``pitch``."""
    return abs((note.pitch if np.isnan(note.f0_midi) else note.f0_midi) - pitch)


def _patch(line: Mapping[str, str], x: float, y: float) -> Patch:
    try:
        return Patch(
            patch_id=line["patch_id"],
            name=line["name"],
            bank=line["bank"],
            family=line["family"],
            engine=line["engine"],
            offset_semitones=float(line["offset_semitones"]),
            x=x,
            y=y,
            payload=line["payload"],
            sha256=line["sha256"],
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"patches.csv, patch {line.get('patch_id')}: {error!r}; run the patches stage"
        ) from error


def _render(row: int, note: Note) -> Render:
    return Render(
        row=row,
        patch_id=note.instrument,
        note_id=note.note_id,
        key=note.pitch,
        velocity=note.velocity,
        f0_midi=note.f0_midi,
        f0_confidence=note.f0_confidence,
    )


def _patch_lines(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run the patches stage") from error


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as handle:
        handle.write(data)


def _save(path: Path, array: np.ndarray[Any, Any]) -> None:
    with atomic_write(path) as handle:
        np.save(handle, array, allow_pickle=False)
