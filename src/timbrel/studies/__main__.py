"""``python -m timbrel.studies <name>``: run one study on what the pipeline built in this checkout."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from timbrel.codec.kinds import open_codec
from timbrel.codec.spectrum_weights import spectrum_weights
from timbrel.errors import DataError, TimbrelError
from timbrel.notes.families import FAMILIES
from timbrel.notes.noteset import NoteSet
from timbrel.params import Params, load
from timbrel.pgesam.dataset import MapNotes, map_notes
from timbrel.pgesam.vae import load_vae
from timbrel.stages.notes import SEED_OFFSET
from timbrel.stages.vae import configure
from timbrel.studies import NAMES, table
from timbrel.studies.listening import Listener
from timbrel.studies.maps import MapTraining, ablations, dimensions, unseen_families
from timbrel.studies.playing_range import Sweep, playing_range
from timbrel.studies.recordings import recordings
from timbrel.studies.render_jobs import render_jobs
from timbrel.studies.table import Study
from timbrel.tracking.record import content_hash
from timbrel.tracking.study import study_run
from timbrel.training import pick_device

DEFAULT_FAMILIES = ("brass", "mallet", "organ")
SMOKE_SWEEP = Sweep(pitches=(36, 60), velocities=(40, 127), at_pitches=(60,))
SMOKE_LEVELS = {"noise, SNR in dB": (20.0,), "room, RT60 in s": (0.4,), "detune, cents": (50.0,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How large a study is. ``notes`` and ``instruments``: at most so many held-out ones."""

    steps: int = 600
    seeds: int = 2
    families: tuple[str, ...] = DEFAULT_FAMILIES
    notes: int = 120
    instruments: int = 24
    smoke: bool = False


SMOKE = Settings(steps=4, seeds=1, families=(), notes=4, instruments=2, smoke=True)


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit status: 1 with one line on stderr for anything the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m timbrel.studies",
        description="Run one study (or all) on data/; writes reports/studies/<name>.json, .md and .png, and an MLflow "
        "run with a child per row. Finished rows are kept: a study that was cut off goes on.",
    )
    parser.add_argument("study", choices=(*NAMES, "all"), metavar="study", help=f"{', '.join(NAMES)}, all")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    for name, what in (
        ("steps", "training steps of a map"),
        ("seeds", "maps trained per row"),
        ("notes", "held-out notes in `recordings`"),
        ("instruments", "held-out instruments in `range`"),
    ):
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: {getattr(Settings(), name)})")
    families = ",".join(DEFAULT_FAMILIES)
    parser.add_argument("--families", help=f"the families to hold out, with commas (default: {families})")
    parser.add_argument("--smoke", action="store_true", help="as small as can be: does it run?")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    given = {name: getattr(options, name) for name in ("steps", "seeds", "notes", "instruments")}
    if options.families:
        given["families"] = tuple(options.families.split(","))
    too_small = [name for name, value in given.items() if isinstance(value, int) and value < 1]
    if too_small:
        parser.error(f"--{too_small[0]} must be at least 1")
    unknown = set(given.get("families") or ()) - set(FAMILIES)
    if unknown:
        parser.error(f"--families: {', '.join(sorted(unknown))}: choose from {', '.join(FAMILIES)}")
    settings = replace(
        SMOKE if options.smoke else Settings(), **{k: v for k, v in given.items() if v is not None}
    )
    try:
        params = load(options.params)
        for name in NAMES if options.study == "all" else (options.study,):
            run_study(name, params, settings, Path.cwd())
    except TimbrelError as error:
        print(f"{options.study}: {error.message}", file=sys.stderr)
        return 1
    return 0


def run_study(name: str, params: Params, settings: Settings, root: Path) -> None:
    """Compute what is missing of one study and write its files and its run."""
    needed, sections = NEEDS[name], SECTIONS[name]
    identity: dict[str, Any] = {
        "settings": {field: getattr(settings, field) for field in ("smoke", *sections)},
        "params": params.model_dump(mode="json", include={"seed", "notes", "vae"}),
        "data": {
            folder: content_hash(root / "data" / folder)[:16]
            for folder in needed
            if (root / "data" / folder).exists()
        },
    }
    study = build(name, params, settings, root)
    folder = root / "reports" / "studies"
    with study_run(name, identity, root) as record:
        table.run(
            study, folder, identity, lambda row, figures: record.row(row.key, dict(row.labels), figures)
        )
        for ending in ("json", "md", "png"):
            record.artifact(folder / f"{name}.{ending}")
    print(f"[{name}] wrote {folder.relative_to(root)}/{name}.json, .md and .png", flush=True)


MAPS = ("embeddings", "codec")
NEEDS = {
    "ablations": MAPS,
    "dimensions": MAPS,
    "unseen-family": MAPS,
    "range": ("embeddings", "codec", "vae"),
    "recordings": ("embeddings", "codec", "vae"),
}
SECTIONS = {
    "ablations": ("steps",),
    "dimensions": ("steps",),
    "unseen-family": ("steps",),
    "range": ("instruments",),
    "recordings": ("notes",),
}


def build(name: str, params: Params, settings: Settings, root: Path) -> Study:
    """The study's rows over the data of this checkout. Raises DataError when the pipeline has not made it yet."""
    note_set = NoteSet.open(root / "data" / "notes")
    stored = root / "data" / "embeddings" / "embeddings.npy"
    if not stored.is_file():
        raise DataError(f"{stored} is missing: run the embeddings stage (make repro)")
    embeddings = np.load(stored, mmap_mode="r", allow_pickle=False)
    notes = map_notes(note_set.notes)
    if name in ("range", "recordings"):
        vae, _ = load_vae(root / "data" / "vae")
        device = pick_device()
        codec = open_codec(root / "data" / "codec", device)
        listener = Listener.prepared(vae.to(device), codec, embeddings, notes, device)
        if name == "recordings":
            levels = SMOKE_LEVELS if settings.smoke else None
            return recordings(
                listener, note_set, notes, count=settings.notes, seed=params.seed, levels=levels
            )
        sweep = SMOKE_SWEEP if settings.smoke else Sweep(velocity=params.notes.velocity)
        return playing_range(
            listener,
            notes,
            render_jobs(params, seed=params.seed + SEED_OFFSET),
            count=settings.instruments,
            seed=params.seed,
            sweep=sweep,
        )
    setup = map_training(params, settings, embeddings, notes, spectrum_weights(root / "data" / "codec"))
    seeds = range(params.seed, params.seed + settings.seeds)
    if name == "ablations":
        return ablations(setup, seeds)
    if name == "dimensions":
        return dimensions(setup, seeds)
    present = [FAMILIES[number] for number in np.unique(notes.of("train").family)]
    families = [family for family in settings.families or present[-1:] if family in present]
    if not families:
        raise DataError(
            f"none of {', '.join(settings.families)} is in data/notes; there are {', '.join(present)}"
        )
    return unseen_families(setup, families, seeds)


def map_training(
    params: Params,
    settings: Settings,
    embeddings: np.ndarray,
    notes: MapNotes,
    spectrum: Mapping[str, Tensor] | None,
) -> MapTraining:
    """The training of the ``vae`` stage, of ``settings.steps`` steps."""
    shape, training, curriculum = configure(params, notes, dimensions=embeddings.shape[2], spectrum=spectrum)
    training = replace(
        training,
        steps=settings.steps,
        evaluate_every=settings.steps,
        warmup_steps=min(training.warmup_steps, settings.steps // 4),
    )
    return MapTraining(
        embeddings=embeddings,
        notes=notes,
        shape=shape,
        training=training,
        curriculum=curriculum,
        device=pick_device(),
        spectrum=spectrum,
    )


if __name__ == "__main__":
    raise SystemExit(main())
