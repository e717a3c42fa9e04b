"""Notes as the two models see them: numbered instruments and families, and the pitch that sounds.

A MIDI key is not always the pitch that is heard: a bass or an organ stop may sound an octave away. A note that is
labelled with its key would then teach the generator a wrong octave. So an instrument's constant offset (the rounded
median of measured pitch minus key) is added to its keys, and a note that still lies more than 50 cents from its label,
or whose pitch could not be measured, is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from timbrel.errors import DataError
from timbrel.notes.families import FAMILIES

LOWEST_PITCH = 48
PITCHES = 25
TOLERANCE_SEMITONES = 0.5
# The map is made from notes of this velocity, the paper's.
MAIN_VELOCITY = 100
HIGHEST_VELOCITY = 127


class LabelledNote(Protocol):
    """What is read of a note (timbrel.notes.noteset.Note has it)."""

    @property
    def row(self) -> int: ...
    @property
    def instrument(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def pitch(self) -> int: ...
    @property
    def velocity(self) -> int: ...
    @property
    def f0_midi(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNotes:
    """One entry per usable note. ``row`` points into the embeddings; ``pitch`` is 0..24 for MIDI 48..72 as sounding;
    ``velocity`` is MIDI's, 1..127; ``instrument`` numbers ``instruments``, ``family`` numbers FAMILIES. Integer arrays
    [n] except ``split`` (str)."""

    row: np.ndarray
    instrument: np.ndarray
    family: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    split: np.ndarray
    instruments: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    def of(self, *splits: str) -> MapNotes:
        """The notes of these splits; instruments keep their numbers."""
        return self.take(np.isin(self.split, splits))

    def take(self, chosen: np.ndarray) -> MapNotes:
        """The entries that ``chosen`` (a mask or indices) names; instruments keep their numbers."""
        return MapNotes(
            row=self.row[chosen],
            instrument=self.instrument[chosen],
            family=self.family[chosen],
            pitch=self.pitch[chosen],
            velocity=self.velocity[chosen],
            split=self.split[chosen],
            instruments=self.instruments,
        )


def map_notes(
    notes: Sequence[LabelledNote], *, velocity: int | None = MAIN_VELOCITY, fewest_per_instrument: int = 5
) -> MapNotes:
    """Label ``notes`` by what sounds and keep those that the map can learn from: of one velocity, or of all (None).

    Instruments of the training split are numbered first, so that their numbers are the classes of the instrument
    classifier. Raises DataError when no training note remains.
    """
    by_instrument: dict[str, list[LabelledNote]] = defaultdict(list)
    for note in notes:
        if velocity is not None and note.velocity != velocity:
            continue
        by_instrument[note.instrument].append(note)
    kept: dict[str, list[tuple[LabelledNote, int]]] = {}
    for name, members in by_instrument.items():
        labelled = _labelled(members)
        if len(labelled) >= fewest_per_instrument:
            kept[name] = labelled
    order = sorted(kept, key=lambda name: (kept[name][0][0].split != "train", name))
    if not order or kept[order[0]][0][0].split != "train":
        raise DataError(
            "no training note of this velocity has a measured pitch within MIDI 48-72: rebuild the notes stage"
        )
    entries = [
        (note.row, number, FAMILIES.index(note.family), pitch - LOWEST_PITCH, note.velocity, note.split)
        for number, name in enumerate(order)
        for note, pitch in kept[name]
    ]
    row, instrument, family, pitch, velocities, split = zip(*entries, strict=True)
    return MapNotes(
        row=np.array(row, dtype=np.int64),
        instrument=np.array(instrument, dtype=np.int64),
        family=np.array(family, dtype=np.int64),
        pitch=np.array(pitch, dtype=np.int64),
        velocity=np.array(velocities, dtype=np.int64),
        split=np.array(split),
        instruments=tuple(order),
    )


def _labelled(members: Sequence[LabelledNote]) -> list[tuple[LabelledNote, int]]:
    voiced = [note for note in members if np.isfinite(note.f0_midi)]
    if not voiced:
        return []
    offset = round(float(np.median([note.f0_midi - note.pitch for note in voiced])))
    return [
        (note, note.pitch + offset)
        for note in voiced
        if LOWEST_PITCH <= note.pitch + offset < LOWEST_PITCH + PITCHES
        and abs(note.f0_midi - note.pitch - offset) <= TOLERANCE_SEMITONES
    ]
