"""What the library keeps of a patch: each render's two vectors, the patch's place on the map, and its preview.

    renders of one patch after the other ─► batches ─► timbre encoder ─► stage 1, stage 2
                                                   ─► codec encoder ─► map encoder ─► mean place
                                         ─► the render nearest to a pitch ─► MP3

The models run as they run in serving, so a library's vectors and a query's come from the same graphs. Patches come in
and go out one by one: what is held is a batch of audio, however large the library is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from timbrel.encoders import frontend
from timbrel.errors import DataError
from timbrel.library import previews, vectors
from timbrel.library.index import semitone
from timbrel.library.tables import Patch, Render
from timbrel.library.vectors import RunModel
from timbrel.notes.noteset import SAMPLE_RATE, Note

if TYPE_CHECKING:
    from timbrel.codec.runtime import Codec

BATCH = 32
# A place on the map is measured at the pitches that the map was trained on.
MAP_PITCHES = range(48, 73)


@dataclass(frozen=True, slots=True, eq=False)
class PatchRenders:
    """A patch to be described: its ``line`` of patches.csv, its notes, and their audio int16 [notes, 96000]."""

    line: Mapping[str, str]
    notes: Sequence[Note]
    audio: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DescribedPatch:
    """A patch as the library keeps it. ``renders`` are numbered from 0; ``stage1`` float32 [renders, d1], ``stage2``
    float16 [renders, d2]; ``preview`` MP3. ``on_map``: whether any render is at the map's pitches.
    """

    patch: Patch
    renders: tuple[Render, ...]
    stage1: np.ndarray
    stage2: np.ndarray
    preview: bytes
    on_map: bool


@dataclass(slots=True, eq=False)
class _Begun:
    """A patch of which some renders are still to be embedded."""

    given: PatchRenders
    placing: set[int]
    preview: Future[bytes]
    stage1: list[np.ndarray] = field(default_factory=list)
    stage2: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return len(self.stage1) == len(self.given.notes)

    def finished(self) -> DescribedPatch:
        x, y = np.stack(self.places).mean(axis=0, dtype=np.float64)
        notes = self.given.notes
        return DescribedPatch(
            patch=_patch(self.given.line, float(x), float(y)),
            renders=tuple(_render(number, note) for number, note in enumerate(notes)),
            stage1=np.stack(self.stage1),
            stage2=np.stack(self.stage2).astype(np.float16),
            preview=self.preview.result(),
            on_map=any(map(_on_map, notes)),
        )


def describe_patches(
    patches: Iterable[PatchRenders],
    run: RunModel,
    codec: Codec,
    *,
    preview_seconds: float,
    preview_pitch: int,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda renders: None,
) -> Iterator[DescribedPatch]:
    """Every patch described, in the order given.

    Args:
        run: runs the timbre and the map encoder.
        codec: the codec that the map was trained on.
        preview_pitch: MIDI pitch; each patch's preview is its render that sounds nearest to it.
        threads: that encode previews; libsndfile does it outside the interpreter's lock.
        progress: called with the renders embedded so far.
    """
    begun: deque[_Begun] = deque()
    done = 0
    with ThreadPoolExecutor(threads) as pool:

        def begin(given: PatchRenders) -> _Begun:
            chosen = min(range(len(given.notes)), key=lambda n: _pitch_gap(given.notes[n], preview_pitch))
            preview = pool.submit(
                previews.encode, as_float(given.audio[chosen]), SAMPLE_RATE, seconds=preview_seconds
            )
            begun.append(_Begun(given, set(_placing(given.notes)), preview))
            return begun[-1]

        renders = ((each, number) for each in map(begin, patches) for number in range(len(each.given.notes)))
        while batch := list(islice(renders, BATCH)):
            audio = as_float(np.stack([each.given.audio[number] for each, number in batch]))
            stage1, stage2 = vectors.embed_clips(run, np.stack([frontend.clip(note) for note in audio]))
            for (each, _), first, second in zip(batch, stage1, stage2, strict=True):
                each.stage1.append(first)
                each.stage2.append(second)
            placed = [at for at, (each, number) in enumerate(batch) if number in each.placing]
            if placed:
                for at, place in zip(placed, vectors.map_positions(run, codec, audio[placed]), strict=True):
                    batch[at][0].places.append(place)
            done += len(batch)
            progress(done)
            while begun and begun[0].whole:
                yield begun.popleft().finished()


def as_float(pcm: np.ndarray) -> np.ndarray:
    """int16 samples as float32 in -1..1."""
    return np.asarray(pcm, dtype=np.float32) / np.float32(32768.0)


def _placing(notes: Sequence[Note]) -> list[int]:
    """The renders of a patch that say where it lies: those at the map's pitches; all, when there are none."""
    return [number for number, note in enumerate(notes) if _on_map(note)] or list(range(len(notes)))


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
