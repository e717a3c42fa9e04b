"""Stage ``evaluate``: ask the finished bundle both questions a few hundred times.

bundle + data/patches → reports/search.json, reports/synthesis.json. The commands in ``benchmarks/`` write the
same two files from the bundle alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.evaluation import patch_recall, synthesis_pitch
from timbrel.evaluation.queries import stored_library
from timbrel.evaluation.report import write_report
from timbrel.library.bundle import Bundle
from timbrel.notes.render import core_count

if TYPE_CHECKING:
    from timbrel.params import Params
    from timbrel.tracking import Record

PROGRESS_SECONDS = 3.0


def run(params: Params, root: Path, record: Record) -> None:
    """Write both reports; their figures are the run's metrics."""
    record.dataset("bundle", root / "bundle")
    with open_engine(root / "bundle") as engine:
        search = search_report(engine, params, root)
        synthesis = synthesis_report(engine, params, root)
    figures = search["conditions"]["library_keys"]["recall"]["search"]
    record.metrics({f"search.{name}": value for name, value in figures.items()})
    numbers = {name: value for name, value in synthesis["results"].items() if isinstance(value, float)}
    record.metrics({f"synthesis.{name}": value for name, value in numbers.items()})
    for name in ("search", "synthesis"):
        record.artifact(root / "reports" / f"{name}.json")


def search_report(engine: Engine, params: Params, root: Path) -> dict[str, Any]:
    """Measure and write reports/search.json. The library's renders are made again where data/ is not there."""
    settings = params.evaluation
    stored = root / "data" / "patches"
    content = {"command": "python benchmarks/patch_recall.py"} | patch_recall.measure(
        engine,
        patch_recall.RecallSettings(
            patches=settings.recall_patches,
            noise_db=settings.recall_noise_db,
            min_velocity=settings.recall_min_velocity,
            max_velocity=settings.recall_max_velocity,
            seed=settings.seed,
        ),
        banks=root / params.patches.banks,
        library=stored_library(stored, engine.bundle.renders) if (stored / "notes.csv").exists() else None,
        progress=Progress(),
    )
    write_report(root / "reports" / "search.json", content)
    return content


def synthesis_report(engine: Engine, params: Params, root: Path) -> dict[str, Any]:
    """Measure and write reports/synthesis.json."""
    settings = params.evaluation
    content = {"command": "python benchmarks/synthesis_pitch.py"} | synthesis_pitch.measure(
        engine,
        synthesis_pitch.SynthesisSettings(
            pairs=settings.synthesis_pairs, seconds=settings.synthesis_seconds, seed=settings.seed
        ),
        progress=Progress(),
    )
    write_report(root / "reports" / "synthesis.json", content)
    return content


@contextmanager
def open_engine(bundle: Path) -> Iterator[Engine]:
    """The bundle's engine, its models on all cores of this process."""
    opened = Bundle.open(bundle)
    paths = {name: opened.path(name) for name in opened.manifest.models}
    engine = Engine(opened, OnnxModels(paths, threads=core_count()))
    try:
        yield engine
    finally:
        engine.close()


class Progress:
    """A line on stdout every few seconds."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            print(f"[evaluate] {what}: {done} of {total}", flush=True)
