"""A registry with tiny bundles in it, and what it says."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from support.tiny_bundle import build_tiny_bundle, tiny_bundle_folder
from timbrel.library.bundle import Bundle
from timbrel.params import Threshold
from timbrel.tracking.promotion import Promoter
from timbrel.tracking.registry import Known, Registry, Version

ROOT = Path(__file__).parents[2]
THRESHOLDS = (Threshold(name="search.top1", better="higher", tolerance=0.01),)
FIGURES = {"search.top1": 0.95, "search.top10": 1.0}


@cache
def migrated_store() -> Path:
    """An empty mlflow.db, to be copied: MLflow's first migration takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="timbrel-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Registry.open(folder)
    return folder / "mlflow.db"


@cache
def other_bundles() -> tuple[Path, Path]:
    """Two further tiny bundles, with other models."""
    folder = Path(tempfile.mkdtemp(prefix="timbrel-others-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variant in (1, 2):
        build_tiny_bundle(folder / str(variant) / "bundle", variant=variant).close()
    return folder / "1" / "bundle", folder / "2" / "bundle"


def empty_registry(root: Path) -> Registry:
    """A registry with thresholds (those of the smoke profile) and no version."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(migrated_store(), root / "mlflow.db")
    shutil.copy(ROOT / "params" / "smoke.yaml", root / "params.yaml")
    return Registry.open(root)


def register(registry: Registry, bundle: Path, **figures: float) -> Version:
    """With figures like ``search_top1``; without any, those of FIGURES."""
    measured = {name.replace("_", ".", 1): value for name, value in figures.items()} or FIGURES
    return registry.register(bundle, Known(figures=measured, settings={}))[0]


def three_versions(root: Path) -> tuple[Version, Version, Version]:
    """All measured alike, so that each may be promoted."""
    registry = empty_registry(root)
    first, second, third = (register(registry, folder) for folder in (tiny_bundle_folder(), *other_bundles()))
    return first, second, third


def promoter(registry: Registry, root: Path) -> Promoter:
    """Without a service."""
    return Promoter(
        registry=registry,
        live=root / "live",
        try_out=Bundle.open,
        take_up=lambda folder, change: None,
        say=lambda line: None,
    )


def command(
    *arguments: object, registry: Path, **variables: str | int | Path
) -> subprocess.CompletedProcess[str]:
    """`timbrel bundle …` as a person types it; further variables as for ``Serving.start``."""
    program = [str(Path(sys.executable).parent / "timbrel"), "bundle", *map(str, arguments)]
    environment = variables_of(registry, **variables)
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=600)


def variables_of(registry: Path, **variables: str | int | Path) -> dict[str, str]:
    """The environment of a command that knows this registry."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
    environment |= {"TIMBREL_REGISTRY": str(registry), "TIMBREL_STATE": str(registry / "state")}
    return environment | {f"TIMBREL_{name.upper()}": str(value) for name, value in variables.items()}


def aliases(registry: Registry) -> dict[str, str]:
    """The bundle that each alias means."""
    return {alias: version.bundle for version in registry.versions() for alias in version.aliases}
