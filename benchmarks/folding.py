"""How far apart are two renders of one patch, and how far two patches? What folds near-duplicates rests on it.

    python benchmarks/folding.py [--patches 200] [--distance 0.02]

For the bundle in this checkout: the largest stage-2 distance over a patch's own pitches, to itself played at a
velocity one step softer or harder and to itself with white noise 60, 50 and 40 dB below; and to the nearest other
patch of the library. Writes reports/folding.json, with the share of patches that would fold wrongly and rightly
at each distance, and the groups of the library at the distance given (by default the bundle's).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.encoders import frontend
from timbrel.encoders.disturb import add_noise
from timbrel.engine.engine import Engine
from timbrel.errors import TimbrelError
from timbrel.evaluation.queries import job_of
from timbrel.evaluation.report import write_report
from timbrel.library.bundle import Bundle
from timbrel.library.folding import SameSound, apart, leaders
from timbrel.library.vectors import embed_clips
from timbrel.notes.render import render_all
from timbrel.stages.evaluate import open_engine

BANKS = Path("banks")
SEED = 20
NOISE_DB = (60.0, 50.0, 40.0)
PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
GRID = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05)


def main() -> int:
    """Exit status 1, with one line, when something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--distance", type=float)
    options = parser.parse_args()
    try:
        with open_engine(Path("bundle")) as engine:
            report = measure(engine, options.patches, options.distance)
    except TimbrelError as error:
        print(f"folding: {error.message}", file=sys.stderr)
        return 1
    write_report(Path("reports/folding.json"), report, significant=True)
    for name, figures in report["distances"].items():
        print(f"{name:24}", "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    print("wrote reports/folding.json")
    return 0


def measure(engine: Engine, count: int, distance: float | None) -> dict[str, Any]:
    """Distances of ``count`` random patches, or of all where there are fewer."""
    bundle = engine.bundle
    distance = bundle.manifest.search.fold_distance if distance is None else distance
    same = SameSound(bundle.renders, bundle.patch_of, bundle.stage2)
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(bundle.patches))[:count])
    measured = _itself(engine, chosen, same)
    everyone = range(len(bundle.patches))
    measured["another patch"] = [
        min(same.distance(int(number), other) for other in everyone if other != number) for number in chosen
    ]
    grouped = leaders(
        bundle.patches, bundle.renders, patch_of=bundle.patch_of, index=bundle.index, stage2=bundle.stage2,
        distance=distance,
    )  # fmt: skip
    sizes = np.bincount(grouped, minlength=len(bundle.patches))
    return {
        "bundle": bundle.id,
        "patches": len(chosen),
        "distances": {
            name: {f"p{each}": float(np.percentile(values, each)) for each in PERCENTILES}
            for name, values in measured.items()
        },
        "share_within": {
            name: {f"{limit:g}": float(np.mean(np.array(values) <= limit)) for limit in GRID}
            for name, values in measured.items()
        },
        "distance": distance,
        "groups": {
            "hits": int((sizes > 0).sum()),
            "folded": int(len(grouped) - (sizes > 0).sum()),
            "largest": int(sizes.max()),
        },
    }


def _itself(engine: Engine, chosen: np.ndarray, same: SameSound) -> dict[str, list[float]]:
    """The largest distance, over a patch's pitches, of its renders to themselves under each small change."""
    bundle: Bundle = engine.bundle
    plans = {
        "velocity -1": lambda velocity: velocity - 1,
        "velocity +1": lambda velocity: min(velocity + 1, 127),
        "the same": lambda velocity: velocity,
    }
    results: dict[str, list[float]] = {}
    for name, change in plans.items():
        jobs = []
        for number in chosen:
            played = [bundle.renders[row] for row in same.rows[number]]
            notes = tuple((render.key, change(render.velocity)) for render in played)
            jobs.append(job_of(bundle.patches[number], notes, BANKS))
        for number, outcome in zip(chosen, render_all(jobs), strict=True):
            notes = [note.audio for note in outcome.notes]
            if len(notes) != len(same.rows[number]) or any(note is None for note in notes):
                continue
            audio = [note.astype(np.float32) / 32768.0 for note in notes if note is not None]
            stored = bundle.stage2[same.rows[number]]
            results.setdefault(name, []).append(_furthest(engine, audio, stored))
            for level in NOISE_DB if name == "the same" else ():
                rng = np.random.default_rng((SEED, int(number)))
                noisy = [add_noise(note, level, rng) for note in audio]
                results.setdefault(f"noise {level:g} dB below", []).append(_furthest(engine, noisy, stored))
    return results


def _furthest(engine: Engine, audio: list[np.ndarray], stored: np.ndarray) -> float:
    clips = np.stack([frontend.clip(note) for note in audio])
    return float(apart(embed_clips(engine.models.run, clips)[1], stored).max())


if __name__ == "__main__":
    raise SystemExit(main())
