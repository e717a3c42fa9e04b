"""Stage ``notes``: soundfont and FM instruments (or NSynth) -> data/notes, 25 pitches each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timbrel.notes.collect import collect_notes
from timbrel.notes.nsynth import collect_nsynth
from timbrel.params import Params
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking import Record

# Each stage draws its voices from a seed of its own: no voice of the library may occur in training.
SEED_OFFSET = 1


def run(params: Params, root: Path, record: Record) -> None:
    """-> data/notes: notes.csv, audio.npy, report.json."""
    wanted = params.notes
    target = root / "data" / "notes"
    pitches = range(wanted.pitch_low, wanted.pitch_high + 1)
    shares = {"validation": wanted.validation_share, "test": wanted.test_share}
    if wanted.nsynth is not None:
        report = collect_nsynth(
            target,
            root / wanted.nsynth,
            pitches=pitches,
            velocities=(wanted.velocity,),
            instruments_per_family=wanted.nsynth_instruments_per_family,
            seed=params.seed + SEED_OFFSET,
            progress=every_few_seconds(record),
        )
    else:
        report = collect_notes(
            target,
            seed=params.seed + SEED_OFFSET,
            general_midi=wanted.general_midi,
            soundfonts=wanted.soundfonts,
            max_presets=wanted.max_presets,
            fm_count=wanted.fm_instruments,
            pitches=pitches,
            velocity=wanted.velocity,
            shares=shares,
            pitched_share=wanted.pitched_share,
            duplicate_db=wanted.duplicate_db,
            progress=every_few_seconds(record),
        )
    record.metrics(final_figures(report))
    record.artifact(target / "report.json")


def final_figures(report: dict[str, Any]) -> dict[str, float]:
    """Counts of a notes report as metrics."""
    dropped = {f"dropped_{reason}": float(count) for reason, count in report["dropped"].items()}
    return {"instruments": float(report["instruments"]), "notes": float(report["notes"]), **dropped}
