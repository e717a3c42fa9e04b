"""One shard: its patches rendered, their F0 measured, embedded, and written. Runs in a process of its own, anywhere.

The engine runs in a process below that one: a patch that crashes it or keeps it busy past its time costs that patch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import numpy as np

from timbrel.bulk import shard_files
from timbrel.bulk.shard_files import Drop, Shard
from timbrel.codec.runtime import ENCODER, Codec, codec_of
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, Unavailable
from timbrel.files import sha256_of
from timbrel.library.describe import describe_model
from timbrel.library.describing import PatchRenders, describe_patches
from timbrel.library.tables import Patch as LibraryPatch
from timbrel.notes.filing import Dropped, file_renders
from timbrel.notes.patches import Patch, render_job
from timbrel.notes.render import Rendered, RenderJob, render_all
from timbrel.notes.selection import picture

MODELS = ("timbre_encoder", "codec_encoder", "map_encoder")
# What renders and measures: another version of one makes other renders.
ENGINES = ("dexed-py", "tinysoundfont", "swift-f0", "soxr", "soundfile")
# To be raised when the code makes something else of the same inputs.
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An ONNX file; a copy on another machine must have the same SHA-256."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How patches become a library. ``pitches`` and ``velocity`` are MIDI; ``patch_seconds``: the most that rendering
    one patch may take; ``fonts``: folder of the soundfonts; ``models`` in the order of ``MODELS``.
    """

    pitches: tuple[int, ...]
    velocity: int
    pitched_share: float
    preview_seconds: float
    preview_pitch: int
    patch_seconds: float
    fonts: Path
    models: tuple[Model, ...]

    @property
    def notes(self) -> tuple[tuple[int, int], ...]:
        """(MIDI key, velocity) of each render."""
        return tuple((pitch, self.velocity) for pitch in self.pitches)

    def key(self, patches: Sequence[Patch]) -> str:
        """SHA-256 over everything that a shard of these patches is made from: patches, settings, models, engines."""
        inputs = {
            "format": FORMAT,
            "engines": {name: metadata.version(name) for name in ENGINES},
            "models": [model.sha256 for model in self.models],
            "settings": {
                name: value for name, value in asdict(self).items() if name not in ("fonts", "models")
            },
            "patches": [
                [each.patch_id, each.name, each.bank, each.family, each.engine, each.sha256]
                for each in patches
            ],
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """A shard to be made: its ``number`` among all, its ``key`` and where it is written."""

    number: int
    patches: tuple[Patch, ...]
    recipe: Recipe
    key: str
    folder: Path

    def __str__(self) -> str:
        return f"shard {self.number} ({len(self.patches)} patches from {self.patches[0].name!r} on)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMade:
    """What became of a task."""

    number: int
    patches: int
    renders: int
    dropped: int


def make_shard(task: ShardTask) -> ShardMade:
    """Render, measure, embed and write one shard. Audio is held for a few patches at a time.

    Raises:
        DataError: a soundfont is not there.
        BundleError: a model's file is not the one that the recipe names.
    """
    recipe = task.recipe
    run, codec = _models(recipe.models)
    jobs = [render_job(patch, recipe.notes, fonts=recipe.fonts) for patch in task.patches]
    by_key = {patch.patch_id: patch for patch in task.patches}
    drops: list[Drop] = []
    pictures: list[np.ndarray] = []
    silent = 0

    def kept() -> Iterator[PatchRenders]:
        nonlocal silent
        for first in _rendered(jobs, recipe):
            outcome = _again(first, recipe) if first.fault else first
            patch = by_key[outcome.job.key]
            filed = file_renders(patch, outcome, pitched_share=recipe.pitched_share)
            if isinstance(filed, Dropped):
                drops.append(drop_of(patch, filed.reason, filed.detail))
                continue
            silent += filed.silent
            probe = filed.probe(len(recipe.pitches))
            pictures.append(_NO_PICTURE if probe is None else np.stack([picture(note) for note in probe]))
            # To the places that the patches stage writes them with, so that both ways give one library.
            line = {**asdict(filed.patch), "offset_semitones": f"{filed.patch.offset_semitones:.3f}"}
            notes = [
                replace(note, f0_midi=_four(note.f0_midi), f0_confidence=_four(note.f0_confidence))
                for note in filed.notes
            ]
            yield PatchRenders(line, notes, np.stack(filed.audio))

    described = tuple(
        describe_patches(
            kept(),
            run.run,
            codec,
            preview_seconds=recipe.preview_seconds,
            preview_pitch=recipe.preview_pitch,
            threads=1,
        )
    )
    shard = Shard(
        key=task.key,
        patches=described,
        pictures=np.stack(pictures) if pictures else np.empty((0, *_NO_PICTURE.shape), np.float32),
        drops=tuple(drops),
        silent_renders=silent,
    )
    shard_files.write(shard_files.path_of(task.folder, task.key), shard)
    return ShardMade(
        number=task.number,
        patches=len(described),
        renders=sum(len(each.renders) for each in described),
        dropped=len(drops),
    )


def drop_of(patch: Patch | LibraryPatch, reason: str, detail: str) -> Drop:
    """The line that tells of a dropped patch."""
    return Drop(patch_id=patch.patch_id, name=patch.name, bank=patch.bank, reason=reason, detail=detail)


# Pools that a shard may use up.
_POOLS = 4


def _rendered(jobs: Sequence[RenderJob], recipe: Recipe) -> Iterator[Rendered]:
    """What became of ``jobs``, one process at a time. Raises Unavailable where none can be kept running."""
    done = 0
    for _ in range(_POOLS):
        try:
            for outcome in render_all(jobs[done:], workers=1, timeout=recipe.patch_seconds):
                done += 1
                yield outcome
            return
        except RuntimeError as error:  # of the pool: a process killed while it took a job leaves it unusable
            broken = error
    raise Unavailable(f"the engines' processes are killed again and again ({broken}): look at the memory")


def _again(outcome: Rendered, recipe: Recipe) -> Rendered:
    """A second try, in another process, whose outcome counts: the first may have been killed for its memory."""
    return next(_rendered([outcome.job], recipe))


_NO_PICTURE = np.full((3, 24, 40), np.nan, dtype=np.float32)


def _four(value: float) -> float:
    return float(f"{value:.4f}")


@lru_cache(maxsize=1)
def _models(models: tuple[Model, ...]) -> tuple[OnnxModels, Codec]:
    """The models on one thread, kept by this process from shard to shard. Raises BundleError."""
    paths = {name: model.path for name, model in zip(MODELS, models, strict=True)}
    for model in models:
        if not model.path.is_file() or sha256_of(model.path) != model.sha256:
            raise BundleError(
                f"{model.path} is not the file that the run began with: give every machine the same bundle"
            )
    running = OnnxModels(paths, threads=1)
    return running, codec_of(running, describe_model(paths[ENCODER], source="", licence="").inputs)
