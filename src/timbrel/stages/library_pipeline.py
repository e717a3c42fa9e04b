"""A library of any size over the models of a bundle, ``pipelines/library``: in shards, on every core or a Ray cluster.

    python -m timbrel.stages.library_pipeline render     banks -> data/large/{shards,library}
    python -m timbrel.stages.library_pipeline index      -> data/large/index
    python -m timbrel.stages.library_pipeline bundle     -> data/large/bundle, for `timbrel bundle use`
    python -m timbrel.stages.library_pipeline all        the three

Every step can be stopped or killed and run again; ``render`` goes on from the shards that are whole.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from timbrel.bulk.library import render_library
from timbrel.bulk.on_ray import RayWorkers
from timbrel.bulk.rendering import MODELS, Model, Recipe
from timbrel.bulk.workers import LocalWorkers
from timbrel.errors import TimbrelError
from timbrel.library.bundle import Bundle, ModelSource
from timbrel.library.manifest import DataSource
from timbrel.notes.banks import read_user_banks
from timbrel.params import Amount, Index, Midi, Positive, Section, Share, Velocity
from timbrel.stages.apart import read_settings
from timbrel.stages.index import index_library
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking import Record, stage_run

SETTINGS = Path("pipelines/library/params.yaml")
OWN = "the user's own; its licence is the user's to know"


class Render(Section):
    """See ``bulk.rendering.Recipe``."""

    pitches: Annotated[tuple[Midi, ...], Field(min_length=5)]
    velocity: Velocity
    pitched_share: Share
    duplicate_db: Amount
    preview_seconds: Annotated[float, Field(gt=0, le=4)]
    preview_pitch: Midi
    patch_seconds: Annotated[float, Field(gt=0)]
    shard_patches: Positive


class Executor(Section):
    """Where shards are made; ``address`` is Ray's."""

    kind: Literal["local", "ray"]
    workers: Positive | None
    address: str | None
    retries: Annotated[int, Field(ge=0)]


class Settings(Section):
    """The whole file."""

    bundle: str
    banks: str
    out: str
    render: Render
    executor: Executor
    index: Index
    limit_mib: Positive


def render(wanted: Settings, root: Path, record: Record) -> None:
    """banks -> out/shards, out/library."""
    bundle = Bundle.open(root / wanted.bundle)
    files = [bundle.manifest.models[name].file for name in MODELS]
    models = tuple(
        Model(path=bundle.folder / file, sha256=bundle.manifest.files[file].sha256) for file in files
    )
    bundle.close()
    asked, banks = wanted.render, read_user_banks(root / wanted.banks)
    recipe = Recipe(
        pitches=asked.pitches, velocity=asked.velocity, pitched_share=asked.pitched_share,
        preview_seconds=asked.preview_seconds, preview_pitch=asked.preview_pitch, patch_seconds=asked.patch_seconds,
        fonts=root / wanted.banks, models=models,
    )  # fmt: skip
    tell = every_few_seconds(record)
    total = -(-len(banks.patches) // asked.shard_patches)
    where = wanted.executor
    with (
        RayWorkers(where.address, where.workers) if where.kind == "ray" else LocalWorkers(where.workers)
    ) as workers:
        figures = render_library(
            banks.patches,
            root / wanted.out / "library",
            recipe,
            workers,
            shards=root / wanted.out / "shards",
            shard_patches=asked.shard_patches,
            duplicate_db=asked.duplicate_db,
            retries=where.retries,
            progress=lambda done, found, patches: tell("shards", done, total),
        )
    told = {"shards": figures.shards, "shards_found": figures.found, "patches_tried": figures.tried}
    told |= {"patches": figures.library.patches, "renders": figures.library.renders}
    told |= {f"dropped_{reason}": count for reason, count in figures.dropped.items()}
    record.metrics({name: float(value) for name, value in told.items()})
    record.artifact(root / wanted.out / "library" / "report.json")


def index(wanted: Settings, root: Path, record: Record) -> None:
    """out/library -> out/index."""
    bundle = Bundle.open(root / wanted.bundle)
    search, whitening = bundle.manifest.search, bundle.styles.whitening
    bundle.close()
    index_library(
        root / wanted.out / "library",
        root / wanted.out / "index",
        wanted.index,
        window=search.window_semitones,
        stage1_share=search.stage1_share,
        whitening=whitening,
        record=record,
    )


def bundle(wanted: Settings, root: Path, record: Record) -> None:
    """The models of the bundle named, out/library, out/index -> out/bundle."""
    base = Bundle.open(root / wanted.bundle)
    manifest = base.manifest
    models = {name: ModelSource(path=base.path(name), entry=entry) for name, entry in manifest.models.items()}
    banks = DataSource(name=wanted.banks, source=f"patches in {wanted.banks}/, {OWN}", licence=OWN)
    out = root / wanted.out
    built = Bundle.build(
        out / "bundle",
        models=models,
        library=out / "library",
        index=out / "index",
        pitches=range(manifest.map.pitch_low, manifest.map.pitch_high + 1),
        velocities=range(manifest.map.velocity_low, manifest.map.velocity_high + 1),
        search=manifest.search,
        data=[*(source for source in manifest.data if source.name != banks.name), banks],
        provenance=manifest.provenance,
        max_bytes=wanted.limit_mib * 2**20,
    )
    sizes = [entry.bytes for entry in built.manifest.files.values()]
    counts = {"bytes": sum(sizes), "patches": len(built.patches), "renders": len(built.renders)}
    record.metrics({name: float(value) for name, value in counts.items()})
    built.close()
    base.close()


STEPS: dict[str, Callable[[Settings, Path, Record], None]] = {
    "render": render,
    "index": index,
    "bundle": bundle,
}


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit status: 1 with one line on stderr for anything the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m timbrel.stages.library_pipeline", description=__doc__)
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--params", type=Path, default=SETTINGS, help="default: %(default)s")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    root = Path.cwd()
    try:
        wanted = read_settings(root / options.params, Settings)
        parameters: dict[str, Any] = wanted.model_dump(mode="json")
        for name in STEPS if options.step == "all" else (options.step,):
            with stage_run(f"library_{name}", parameters, root) as record:
                STEPS[name](wanted, root, record)
    except TimbrelError as error:
        print(f"library {options.step}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
