"""Banks, recipe and a whole run for the tests of ``timbrel.bulk``, which also run it in processes that are killed.

python -m support.bulk FOLDER SHARD_PATCHES [WORKERS]      renders FOLDER/banks into FOLDER/library
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from support.tiny_models import write_tiny_models
from timbrel.bulk.library import BulkFigures, Progress, render_library
from timbrel.bulk.rendering import MODELS, Model, Recipe
from timbrel.bulk.workers import LocalWorkers, Workers
from timbrel.files import sha256_of
from timbrel.notes import dx7
from timbrel.notes.banks import read_user_banks
from timbrel.notes.fm_banks import generate, write_banks

PITCHES = (36, 48, 60, 72, 84)
DUPLICATE_DB = 1.0
# A fixed tone's pitch does not follow the keys; a sine three times, once under another name, once told apart by what
# is not heard: the speed of an oscillator that modulates nothing.
_SINE = dx7.Voice(
    name="SINE",
    algorithm=32,
    operators=(dx7.Operator(output=99, levels=(99, 99, 99, 0)), *[dx7.Operator()] * 5),
)


def write_inputs(folder: Path, *, voices: int) -> None:
    """FOLDER/banks with generated voices and odd ones, FOLDER/models with tiny models."""
    made = [each.voice for each in generate(voices, seed=77)]
    fixed = dx7.Operator(output=99, levels=(99, 99, 99, 0), fixed=True, coarse=2)
    odd = [
        _SINE,
        replace(_SINE, name="SINE AGAIN"),
        replace(_SINE, name="SINE ALIKE", lfo_speed=77),
        replace(_SINE, name="FIXED", operators=(fixed, *_SINE.operators[1:])),
    ]
    write_banks([*made[: voices // 2], *odd, *made[voices // 2 :]], folder / "banks", stem="bank")
    write_tiny_models(folder / "models")


def recipe_of(folder: Path, **changes: object) -> Recipe:
    models = (folder / "models" / f"{name}.onnx" for name in MODELS)
    recipe = Recipe(
        pitches=PITCHES, velocity=100, pitched_share=0.6, preview_seconds=0.5, preview_pitch=60,
        patch_seconds=120.0, fonts=folder / "banks",
        models=tuple(Model(path=path, sha256=sha256_of(path)) for path in models),
    )  # fmt: skip
    return replace(recipe, **changes)  # type: ignore[arg-type]


def run(
    folder: Path,
    workers: Workers,
    *,
    shard_patches: int,
    recipe: Recipe | None = None,
    progress: Progress = lambda done, found, patches: None,
) -> BulkFigures:
    return render_library(
        read_user_banks(folder / "banks").patches,
        folder / "library",
        recipe or recipe_of(folder),
        workers,
        shards=folder / "shards",
        shard_patches=shard_patches,
        duplicate_db=DUPLICATE_DB,
        progress=progress,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    with LocalWorkers(int(sys.argv[3]) if len(sys.argv) > 3 else None) as local:
        print(run(Path(sys.argv[1]), local, shard_patches=int(sys.argv[2])))
