"""Instrument retrieval on engines that no encoder has learned from: their presets are the instruments.

The notes are as ``instruments`` wants them: four keys, two by two a semitone apart, so that the gate has neighbours to
offer; each soft, at velocity 100 and as hard as can be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from timbrel.errors import DataError
from timbrel.evaluation.instruments import REFERENCE_VELOCITY, LabelledNotes, NoteLabels
from timbrel.notes.unseen_engines import ENGINES, patches, render_unseen

KEYS = (51, 52, 64, 65)
VELOCITIES = (40, REFERENCE_VELOCITY, 127)
FULL_SCALE = np.float32(32_768)


def render_notes(
    presets: int, *, seed: int, workers: int | None = None
) -> tuple[LabelledNotes, dict[str, int]]:
    """Notes of ``presets`` presets of each engine that is installed, drawn by ``seed``; and how many of each engine
    were kept, which are those that sound in tune with their keys.

    Raises DataError where no engine is installed.
    """
    # Two banks may have presets of one name, which could not be told apart.
    drawn = {
        (engine, patch.name): replace(patch, keys=KEYS)
        for engine in ENGINES
        for patch in patches(engine, presets, seed=seed)
    }
    notes = render_unseen(list(drawn.values()), velocities=VELOCITIES, workers=workers)
    if not notes:
        raise DataError(
            f"none of {', '.join(ENGINES)} is here: apt-get install amsynth whysynth, pip install vita"
        )
    numbers = {name: number for number, name in enumerate(dict.fromkeys((n.engine, n.patch) for n in notes))}
    labels = NoteLabels(
        instrument=np.array([numbers[note.engine, note.patch] for note in notes]),
        pitch=np.array([float(note.key) for note in notes]),
        velocity=np.array([note.velocity for note in notes]),
    )
    audio = np.stack([note.audio for note in notes])
    kept = {engine: sum(name[0] == engine for name in numbers) for engine in ENGINES}
    return LabelledNotes(labels, lambda rows: audio[rows].astype(np.float32) / FULL_SCALE), kept
