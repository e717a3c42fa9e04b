"""What rendering and embedding a library costs, per core, and whether its memory grows with the library.

    python benchmarks/library_scale.py [--patches 200 2000] [--bundle bundle] [--workers N] [--executor local]

Draws DX7 voices at random (every operator's level, ratio and envelope, algorithm, feedback: valid, and odd), renders
each at five pitches, embeds them with the bundle's models in shards, and measures for each number of patches: wall and
processor seconds, and the most memory that all its processes held. Writes reports/library_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from timbrel.bulk.library import BulkFigures, render_library
from timbrel.bulk.on_ray import RayWorkers
from timbrel.bulk.rendering import MODELS, Model, Recipe
from timbrel.bulk.workers import LocalWorkers
from timbrel.errors import TimbrelError
from timbrel.library.bundle import Bundle
from timbrel.notes.dx7 import Operator, Voice, to_packed
from timbrel.notes.patches import Patch, dx7_patch

REPORT = Path("reports/library_scale.json")
PITCHES = (36, 48, 60, 72, 84)
LARGE = 200_000  # patches
SAMPLED_SECONDS = 0.1


def random_patches(count: int, *, seed: int = 1) -> Iterator[Patch]:
    """Patches of voices drawn at random, each from a generator of its own: a longer list begins with a shorter one."""
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        voice = Voice(
            name=f"R{index}",
            algorithm=int(rng.integers(1, 33)),
            feedback=int(rng.integers(0, 8)),
            operators=tuple(_operator(rng) for _ in range(6)),
            lfo_speed=int(rng.integers(0, 60)),
            lfo_pitch_depth=int(rng.integers(0, 20)),
            pitch_sensitivity=int(rng.integers(0, 3)),
        )
        yield dx7_patch(to_packed(voice), bank="random.syx", family="synth_lead", split="library")


def _operator(rng: np.random.Generator) -> Operator:
    rates = rng.integers(20, 100, 4)
    levels = (*rng.integers(60, 100, 3), 0)
    return Operator(
        rates=tuple(map(int, rates)),  # type: ignore[arg-type]
        levels=tuple(map(int, levels)),  # type: ignore[arg-type]
        output=int(rng.integers(40, 100)),
        coarse=int(rng.integers(0, 8)),
        fine=int(rng.choice([0, 0, 0, 1, 2])),
        detune=int(rng.integers(4, 11)),
        velocity=int(rng.integers(0, 5)),
    )


class Memory:
    """The most memory, in MiB, that this process (``driver``) and those below it (``each`` at most, ``together``) held.

    Memory that processes share is counted once among them (PSS).
    """

    def __init__(self) -> None:
        self.driver = self.each = self.together = 0.0
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            yield self
        finally:
            self._stop.set()
            watch.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._stop.wait(SAMPLED_SECONDS):
            own, others = _held(this), [_held(child) for child in this.children(recursive=True)]
            self.driver = max(self.driver, own)
            self.each = max(self.each, *others, 0.0)
            self.together = max(self.together, own + sum(others))


def _held(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.Error:
        return 0.0


def measure(count: int, recipe: Recipe, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run from nothing."""
    before, began = _processor_seconds(), time.monotonic()
    memory = Memory()
    chosen = RayWorkers if options.executor == "ray" else LocalWorkers
    with memory.watched(), chosen(count=options.workers) as workers:
        figures: BulkFigures = render_library(
            random_patches(count),
            folder / "library",
            recipe,
            workers,
            shards=folder / "shards",
            shard_patches=options.shard_patches,
            duplicate_db=1.0,
            progress=lambda done, found, patches: print(
                f"{count}: shard {done}", file=sys.stderr, flush=True
            ),
        )
        cores = workers.count
    seconds, processor = time.monotonic() - began, _processor_seconds() - before
    return {
        "patches": count,
        "kept": figures.library.patches,
        "renders": figures.library.renders,
        "dropped": figures.dropped,
        "workers": cores,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "patches_per_processor_second": round(count / processor, 3),
        "patches_per_second_per_worker": round(count / seconds / cores, 3),
        "peak_mib": {
            "driver": round(memory.driver), "largest_other": round(memory.each), "together": round(memory.together),
        },
        "disk_kib_per_patch": {
            "shards": round(_size(folder / "shards") / count / 1024, 1),
            "library": round(_size(folder / "library") / count / 1024, 1),
        },
    }  # fmt: skip


def _processor_seconds() -> float:
    """Of this process and of those below it that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> int:
    """Exit status 1, with one line, when something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patches", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--shard-patches", type=int, default=64)
    parser.add_argument("--workers", type=int, default=None, help="default: every core")
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--output", type=Path, default=REPORT)
    options = parser.parse_args()
    runs = []
    try:
        bundle = Bundle.open(options.bundle)
        files = [bundle.manifest.models[name].file for name in MODELS]
        models = tuple(
            Model(path=bundle.path(file).absolute(), sha256=bundle.manifest.files[file].sha256)
            for file in files
        )
        bundle_id = bundle.id
        bundle.close()
        recipe = Recipe(
            pitches=PITCHES, velocity=100, pitched_share=0.6, preview_seconds=2.5, preview_pitch=60,
            patch_seconds=300.0, fonts=Path(), models=models,
        )  # fmt: skip
        for count in options.patches:
            folder = Path(tempfile.mkdtemp(prefix="timbrel-scale-"))
            try:
                runs.append(measure(count, recipe, folder, options))
            finally:
                shutil.rmtree(folder)
            print(json.dumps(runs[-1], indent=2))
    except TimbrelError as error:
        print(f"library_scale: {error.message}", file=sys.stderr)
        return 1
    largest = runs[-1]
    hours = LARGE / largest["patches_per_processor_second"] / 3600
    report = {
        "bundle": bundle_id,
        "voices": "random DX7 voices, seed 1, this script",
        "pitches": PITCHES,
        "shard_patches": options.shard_patches,
        "executor": options.executor,
        "cores_of_this_machine": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "runs": runs,
        "extrapolated": {
            "note": (
                f"not measured: {LARGE} patches at {len(PITCHES)} pitches, at the processor time per patch of the run "
                f"of {largest['patches']} patches, as if every core were free and nothing else grew"
            ),
            "patches": LARGE,
            "renders_asked_for": LARGE * len(PITCHES),
            "core_hours": round(hours, 1),
            "hours_on_16_cores": round(hours / 16, 1),
            "shards_gib": round(LARGE * largest["disk_kib_per_patch"]["shards"] / 2**20, 1),
            "library_gib": round(LARGE * largest["disk_kib_per_patch"]["library"] / 2**20, 1),
        },
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
