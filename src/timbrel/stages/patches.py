"""Stage ``patches``: our FM banks and the user's own files -> data/patches, rendered and measured."""

from __future__ import annotations

from pathlib import Path

from timbrel.notes.library import Plan, collect_patches
from timbrel.params import Params
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking import Record

# Seeds of their own, apart from the notes' too: what trains the encoder never occurs in the library.
LIBRARY_SEED_OFFSET = 2
TRAINING_SEED_OFFSET = 3


def run(params: Params, root: Path, record: Record) -> None:
    """banks/ -> data/patches: notes.csv, audio.npy, patches.csv, banks/*.syx, report.json."""
    wanted = params.patches
    target = root / "data" / "patches"
    plan = Plan(
        library_voices=wanted.library_voices,
        library_pitches=tuple(wanted.library_pitches),
        library_velocity=wanted.library_velocity,
        training_voices=wanted.training_voices,
        training_renders=wanted.training_renders,
        training_pitches=wanted.training_pitches,
        training_velocities=wanted.training_velocities,
        validation_share=wanted.validation_share,
        pitched_share=wanted.pitched_share,
        duplicate_db=wanted.duplicate_db,
    )
    report = collect_patches(
        target,
        plan,
        library_seed=params.seed + LIBRARY_SEED_OFFSET,
        training_seed=params.seed + TRAINING_SEED_OFFSET,
        user_banks=root / wanted.banks,
        progress=every_few_seconds(record),
    )
    figures = {f"patches_{split}": float(count) for split, count in report["patches"].items()}
    figures |= {f"renders_{split}": float(count) for split, count in report["renders"].items()}
    for split, reasons in report["dropped"].items():
        figures |= {f"dropped_{split}_{reason}": float(count) for reason, count in reasons.items()}
    record.metrics({**figures, "library_distinct_beyond_2_db": report["distinct"]["patches_beyond_2_db"]})
    record.artifact(target / "report.json")
