"""The library and the encoder's training voices: rendered, measured, filed under what sounds.

Both come from our own generator with different seeds, so that the encoder never sees a voice of the library;
the user's banks join the library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.errors import DataError
from timbrel.notes.banks import read_user_banks
from timbrel.notes.collect import Progress, family_table
from timbrel.notes.dx7 import to_packed
from timbrel.notes.filing import Dropped, file_renders
from timbrel.notes.fm_banks import GeneratedVoice, generate, write_banks
from timbrel.notes.noteset import NoteSetWriter
from timbrel.notes.patches import Patch, dx7_patch, render_job, write_patches
from timbrel.notes.render import Rendered, RenderJob, render_all
from timbrel.notes.selection import Duplicates, summarise
from timbrel.notes.splits import assign_splits

Notes = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to render. Pitches and velocities as MIDI; spans include both ends."""

    library_voices: int
    library_pitches: tuple[int, ...]
    library_velocity: int
    training_voices: int
    training_renders: int
    training_pitches: tuple[int, int]
    training_velocities: tuple[int, int]
    validation_share: float
    pitched_share: float
    duplicate_db: float


def collect_patches(
    folder: Path,
    plan: Plan,
    *,
    library_seed: int,
    training_seed: int,
    user_banks: Path,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write notes.csv, audio.npy, patches.csv, report.json and our banks (``banks/*.syx``); returns the report."""
    if library_seed == training_seed:
        raise DataError("the library and the encoder's voices need different seeds")
    user = read_user_banks(user_banks)
    with NoteSetWriter(folder) as writer:
        library = generate(plan.library_voices, seed=library_seed)
        own = _generated(library, writer.path("banks"), split="library", stem="timbrel")
        training = generate(plan.training_voices, seed=training_seed)
        trained = _generated(training, writer.path("banks"), split="train", stem="training")
        filer = _Filer(writer, plan, templates={**_templates(own, library), **_templates(trained, training)})
        fixed = tuple((pitch, plan.library_velocity) for pitch in plan.library_pitches)
        tasks = [(patch, fixed) for patch in (*own, *user.patches)]
        tasks += [(patch, _draw(plan, training_seed, index)) for index, patch in enumerate(trained)]
        tasks = filer.without_copies(tasks)
        by_key = {patch.patch_id: patch for patch, _ in tasks}
        jobs: list[RenderJob] = [render_job(patch, notes, fonts=user_banks) for patch, notes in tasks]
        for outcome in render_all(
            jobs, workers=workers, report=lambda done: progress("patches", done, len(jobs))
        ):
            filer.take(by_key[outcome.job.key], outcome)
        filer.split(training_seed)
        write_patches(writer.path("patches.csv"), filer.kept)
        writer.report = {
            **filer.report(),
            "tried": {"library": len(own), "user": len(user.patches), "training": len(trained)},
            "user_banks": {**user.counts, "problems": list(user.problems)},
        }
        return writer.report


def _generated(voices: Sequence[GeneratedVoice], folder: Path, *, split: str, stem: str) -> list[Patch]:
    """Write the voices as bank files, and describe each by the bank it now lies in."""
    paths = write_banks([each.voice for each in voices], folder, stem=stem)
    return [
        dx7_patch(to_packed(each.voice), bank=paths[index // 32].name, family=each.family, split=split)
        for index, each in enumerate(voices)
    ]


def _templates(patches: Sequence[Patch], voices: Sequence[GeneratedVoice]) -> dict[str, str]:
    return {patch.patch_id: each.template for patch, each in zip(patches, voices, strict=True)}


def _draw(plan: Plan, seed: int, index: int) -> Notes:
    """Random (key, velocity) pairs for one voice, the keys spread over the span by stratified draws."""
    generator = np.random.default_rng((seed, 7_777, index))
    low, high = plan.training_pitches
    edges = np.linspace(low, high + 1, plan.training_renders + 1)
    keys = np.floor(generator.uniform(edges[:-1], edges[1:])).astype(int)
    velocities = generator.integers(plan.training_velocities[0], plan.training_velocities[1] + 1, len(keys))
    return tuple((int(key), int(velocity)) for key, velocity in zip(keys, velocities, strict=True))


class _Filer:
    """Decides on each patch, writes what is kept, counts what is not."""

    def __init__(self, writer: NoteSetWriter, plan: Plan, *, templates: dict[str, str]) -> None:
        self._writer = writer
        self._plan = plan
        self._templates = templates
        self._duplicates = Duplicates(plan.duplicate_db)
        self._dropped: dict[str, Counter[str]] = {"library": Counter(), "train": Counter()}
        self._details: dict[str, str] = {}
        self._silent_renders = 0
        self._renders: Counter[str] = Counter()
        self.kept: list[Patch] = []

    def without_copies(self, tasks: Sequence[tuple[Patch, Notes]]) -> list[tuple[Patch, Notes]]:
        """Tasks whose patch has not come before (byte for byte, names aside); copies are counted."""
        seen: dict[str, Patch] = {}
        fresh = []
        for patch, notes in tasks:
            if patch.patch_id in seen:
                self._drop(patch, "duplicate", f"same bytes as {seen[patch.patch_id].name}")
                continue
            seen[patch.patch_id] = patch
            fresh.append((patch, notes))
        return fresh

    def take(self, patch: Patch, outcome: Rendered) -> None:
        """File the renders of ``patch`` under what sounds, or drop it."""
        filed = file_renders(patch, outcome, pitched_share=self._plan.pitched_share)
        if isinstance(filed, Dropped):
            self._drop(patch, filed.reason, filed.detail)
            return
        # Only the library is rendered at the same keys throughout, and only there a copy would be shown twice.
        probe = filed.probe(len(self._plan.library_pitches)) if patch.split == "library" else None
        twin = None if probe is None else self._duplicates.check(patch.patch_id, probe)
        if twin is not None:
            self._drop(patch, "duplicate", f"sounds like {twin}")
            return
        self._silent_renders += filed.silent
        self.kept.append(filed.patch)
        for note, audio in zip(filed.notes, filed.audio, strict=True):
            self._renders[patch.split] += 1
            self._writer.add(note, audio)

    def _drop(self, patch: Patch, reason: str, detail: str) -> None:
        self._dropped[patch.split][reason] += 1
        self._details[f"{patch.split}/{patch.patch_id}"] = f"{reason}: {patch.name}: {detail}"

    def split(self, seed: int) -> None:
        """Part the training voices into train and validation."""
        training = {patch.patch_id: patch.family for patch in self.kept if patch.split == "train"}
        splits = assign_splits(training, {"validation": self._plan.validation_share}, seed=seed)
        self.kept = [replace(patch, split=splits.get(patch.patch_id, patch.split)) for patch in self.kept]
        self._writer.set_splits(splits)

    def report(self) -> dict[str, Any]:
        library = [patch for patch in self.kept if patch.split == "library"]
        distinct = summarise(self._duplicates.nearest())
        offsets = Counter(round(patch.offset_semitones) for patch in library)
        return {
            "patches": dict(sorted(Counter(patch.split for patch in self.kept).items())),
            "renders": dict(sorted(self._renders.items())),
            "silent_renders_left_out": self._silent_renders,
            "dropped": {split: dict(sorted(counts.items())) for split, counts in self._dropped.items()},
            "dropped_patches": dict(sorted(self._details.items())),
            "families": family_table((patch.family, patch.split) for patch in self.kept),
            "templates": dict(
                sorted(Counter(self._templates.get(patch.patch_id, "user") for patch in library).items())
            ),
            "offsets_semitones": {str(offset): count for offset, count in sorted(offsets.items())},
            "distinct": {
                "measure": "mean level difference of mel pictures at three keys, dB, to the nearest other patch",
                "dropped_below_db": self._plan.duplicate_db,
                "least_db": distinct.least_db,
                "median_db": distinct.median_db,
                "patches_beyond_2_db": distinct.beyond_2_db,
                "patches_beyond_3_db": distinct.beyond_3_db,
            },
        }
