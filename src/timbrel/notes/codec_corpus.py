"""What the codec learns from besides data/notes and data/patches: the pitches that those lack, and synthetic tones.

    wide        every soundfont preset again, and FM voices of their own, below and above the map's 48 ... 72
    synthetic   tones of ``synthetic.py`` at any pitch between two

Both are NoteSets. Presets keep the names that they have in data/notes, so that what is held out there can be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timbrel.notes.collect import Progress, collect_notes
from timbrel.notes.noteset import Note, NoteSet, NoteSetWriter, quantise
from timbrel.notes.plan import NotePlan
from timbrel.notes.render import map_jobs
from timbrel.notes.synthetic import draw_tone, play

# One instrument in this many is for watching the training, not for training.
WATCHED = 50


def collect_wide(
    folder: Path,
    *,
    seed: int,
    pitches: tuple[int, ...],
    velocity: int,
    velocity_notes: int,
    velocities: tuple[int, int],
    general_midi: bool,
    soundfonts: Sequence[str],
    max_presets: int,
    fm_count: int,
    pitched_share: float,
    duplicate_db: float,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write the NoteSet of presets and FM voices at ``pitches``; returns its report."""
    plan = NotePlan(
        pitches=pitches,
        velocity=velocity,
        velocity_notes=velocity_notes,
        velocities=velocities,
        instruments_per_family=None,
        heldout_families=(),
        shares={"validation": 1.0 / WATCHED, "test": 0.0},
    )
    return collect_notes(
        folder,
        plan,
        seed=seed,
        general_midi=general_midi,
        soundfonts=soundfonts,
        max_presets=max_presets,
        fm_count=fm_count,
        pitched_share=pitched_share,
        duplicate_db=duplicate_db,
        progress=progress,
    )


def collect_tones(
    folder: Path,
    *,
    tones: int,
    notes_each: int,
    pitches: tuple[float, float],
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write the NoteSet of ``tones`` synthetic instruments with ``notes_each`` notes; returns its report."""
    jobs = [(seed, notes_each, pitches) for seed in range(tones)]
    with NoteSetWriter(folder) as writer:
        for seed, result in enumerate(map_jobs(jobs, render_tone)):
            progress("tones", seed + 1, tones)
            for midi, audio in result.value or ():
                note = Note(
                    row=0,
                    note_id=f"tone_{seed:04d}-{midi:.2f}",
                    instrument=f"tone_{seed:04d}",
                    name=f"tone {seed}",
                    family="synth_lead",
                    source="synthetic",
                    pitch=round(midi),
                    velocity=100,
                    split="train" if seed % WATCHED else "validation",
                    f0_midi=midi,
                    f0_confidence=1.0,
                )
                writer.add(note, audio)
        writer.report = {"instruments": tones, "notes": tones * notes_each}
        return writer.report


def render_tone(job: tuple[int, int, tuple[float, float]]) -> list[tuple[float, npt.NDArray[np.int16]]]:
    """(MIDI pitch, audio) of each note of one tone: ``job`` is its seed, how many notes, and between which pitches."""
    seed, count, pitches = job
    tone = draw_tone(seed)
    drawn = np.random.default_rng([seed, 3]).uniform(*pitches, count)
    return [(float(midi), quantise(play(tone, midi))) for midi in drawn]


def training_rows(wide: NoteSet, notes: NoteSet) -> npt.NDArray[np.int64]:
    """Rows of ``wide`` to train on: none of a preset that ``notes`` holds out.

    FM voices of the two sets share names, but no voice: only soundfont presets are looked up.
    """
    held = {note.instrument for note in notes if note.split != "train" and note.source == "soundfont"}
    rows = [note.row for note in wide if note.split == "train" and note.instrument not in held]
    return np.asarray(rows, dtype=np.int64)
