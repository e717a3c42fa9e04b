"""Stage ``notes``: soundfont and FM instruments (or NSynth) -> data/notes, 25 pitches each, and some velocities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timbrel.notes.collect import collect_notes
from timbrel.notes.nsynth import collect_nsynth
from timbrel.notes.plan import NotePlan
from timbrel.params import Params
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking import Record

# Each stage draws its voices from a seed of its own: no voice of the library may occur in training.
SEED_OFFSET = 1


def run(params: Params, root: Path, record: Record) -> None:
    """-> data/notes: notes.csv, audio.npy, report.json."""
    wanted = params.notes
    target = root / "data" / "notes"
    seed = params.seed + SEED_OFFSET
    plan = NotePlan(
        pitches=tuple(range(wanted.pitch_low, wanted.pitch_high + 1)),
        velocity=wanted.velocity,
        velocity_notes=wanted.velocity_notes,
        velocities=wanted.velocities,
        instruments_per_family=wanted.instruments_per_family,
        heldout_families=wanted.heldout_families,
        shares={"validation": wanted.validation_share, "test": wanted.test_share},
    )
    if wanted.nsynth is not None:
        report = collect_nsynth(
            target, root / wanted.nsynth, plan, seed=seed, progress=every_few_seconds(record)
        )
    else:
        report = collect_notes(
            target,
            plan,
            seed=seed,
            general_midi=wanted.general_midi,
            soundfonts=wanted.soundfonts,
            max_presets=wanted.max_presets,
            fm_count=wanted.fm_instruments,
            pitched_share=wanted.pitched_share,
            duplicate_db=wanted.duplicate_db,
            progress=every_few_seconds(record),
        )
    record.metrics(final_figures(report))
    record.artifact(target / "report.json")


def final_figures(report: dict[str, Any]) -> dict[str, float]:
    """Counts of a notes report as metrics."""
    figures = {"instruments": report["instruments"], "notes": report["notes"]}
    figures["velocity_notes"] = report["velocity_notes"].get("kept", 0)
    figures["families"] = len(report["families"])
    for family, splits in report["families"].items():
        figures |= {f"instruments_{family}_{split}": count for split, count in splits.items()}
        for split, count in splits.items():
            figures[f"instruments_{split}"] = figures.get(f"instruments_{split}", 0) + count
    figures |= {f"instruments_{source}": count for source, count in report["sources"].items()}
    figures |= {f"dropped_{reason}": count for reason, count in report["dropped"].items()}
    figures["soundfonts_absent"] = report.get("soundfonts_absent", 0)
    return {name: float(count) for name, count in figures.items()}
