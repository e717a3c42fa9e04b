"""Queries with a known answer: notes of library patches, played again under other conditions.

patch's payload ─► its real engine, at another velocity ─► noise ─► query
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timbrel.audio import SAMPLE_RATE, Audio
from timbrel.encoders.disturb import add_noise
from timbrel.errors import DataError
from timbrel.library.tables import Patch, Render
from timbrel.notes import patches
from timbrel.notes.noteset import NoteSet
from timbrel.notes.render import RenderJob, render_all

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """``audio`` is what the search hears: 24 kHz, float32; ``key`` and ``velocity`` are how it was played."""

    patch: Patch
    key: int
    velocity: int
    audio: Audio


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One note to play."""

    patch: Patch
    key: int
    velocity: int


def plan(
    library: Sequence[Patch],
    renders: Sequence[Render],
    *,
    count: int,
    velocities: range,
    keys: Sequence[int] | None = None,
    seed: int,
) -> list[Plan]:
    """``count`` different random patches (all, where there are fewer), each at a random key and velocity.

    The key is one that the library holds a render of; with ``keys`` it is one of those that are no such key.
    The velocity is never that of the library's own render.
    """
    rng = np.random.default_rng(seed)
    rendered: dict[str, dict[int, int]] = {}
    for render in renders:
        rendered.setdefault(render.patch_id, {})[render.key] = render.velocity
    chosen = rng.choice(len(library), size=min(count, len(library)), replace=False)
    plans = []
    for number in chosen:
        patch = library[int(number)]
        own = rendered[patch.patch_id]
        candidates = sorted(own) if keys is None else sorted(set(keys) - own.keys())
        key = int(rng.choice(candidates))
        velocity = int(rng.choice([v for v in velocities if v not in own.values()]))
        plans.append(Plan(patch=patch, key=key, velocity=velocity))
    return plans


def play(
    plans: Sequence[Plan],
    *,
    noise_db: float,
    banks: Path,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> tuple[list[Query], list[Plan]]:
    """Render the plans in their engines' own processes and add white noise ``noise_db`` below each note's
    power.

    Returns the queries, and the plans that gave no sound (silent, or their engine failed).
    """
    jobs = [job_of(planned.patch, ((planned.key, planned.velocity),), banks) for planned in plans]
    queries, mute = [], []
    done = render_all(jobs, report=lambda number: progress(number, len(jobs)))
    for number, (planned, outcome) in enumerate(zip(plans, done, strict=True)):
        audio = outcome.notes[0].audio if outcome.notes else None
        if audio is None:
            mute.append(planned)
            continue
        # One generator per query: what one patch does leaves the noise of the others alone.
        rng = np.random.default_rng((seed, number))
        samples = add_noise(audio.astype(np.float32) / 32768.0, noise_db, rng)
        query = Query(
            patch=planned.patch, key=planned.key, velocity=planned.velocity, audio=Audio(samples, SAMPLE_RATE)
        )
        queries.append(query)
    return queries, mute


def stored_library(folder: Path, renders: Sequence[Render]) -> Iterator[tuple[int, np.ndarray]]:
    """(row, note int16 [samples]) of every render, as the patches stage left them in ``folder``.

    Raises DataError when the folder holds other notes than the library was made from.
    """
    notes = NoteSet.open(folder)
    rows = notes.select(split="library")
    if [notes.notes[row].note_id for row in rows] != [render.note_id for render in renders]:
        raise DataError(f"{folder} holds other notes than the bundle: run `dvc repro`, or remove the folder")
    return ((number, notes.audio[row]) for number, row in enumerate(rows))


def replay_library(
    library: Sequence[Patch],
    renders: Sequence[Render],
    *,
    banks: Path,
    progress: Progress = lambda done, total: None,
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, note int16 [samples]) of every render, made again.

    Raises DataError when a patch does not render as it did for the library.
    """
    rows: dict[str, list[Render]] = {}
    for render in renders:
        rows.setdefault(render.patch_id, []).append(render)
    jobs = [
        job_of(patch, tuple((r.key, r.velocity) for r in rows[patch.patch_id]), banks) for patch in library
    ]
    for outcome in render_all(jobs, report=lambda number: progress(number, len(jobs))):
        audio = [note.audio for note in outcome.notes if note.audio is not None]
        if len(audio) != len(outcome.job.notes):
            raise DataError(
                f"patch {outcome.job.key} no longer renders as for the library ({outcome.fault or 'silent'}): "
                "build the library again with these engines"
            )
        yield from zip((render.row for render in rows[outcome.job.key]), audio, strict=True)


def job_of(patch: Patch, notes: tuple[tuple[int, int], ...], banks: Path) -> RenderJob:
    """The render job of a library patch at (key, velocity) pairs. Raises DataError when its soundfont is gone."""
    playable = patches.Patch(
        patch_id=patch.patch_id,
        name=patch.name,
        bank=patch.bank,
        family=patch.family,
        engine=patch.engine,
        split="library",
        offset_semitones=patch.offset_semitones,
        payload=patch.payload,
        sha256=patch.sha256,
    )
    return patches.render_job(playable, notes, fonts=banks)
