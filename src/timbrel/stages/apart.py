"""A pipeline apart from the default one, which takes its weights as an input in Git: the codec's, the encoder's.

Its settings are a file of its own, its steps are commands, and ``ship`` copies what it trained.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from timbrel.errors import ConfigurationError, DataError, TimbrelError
from timbrel.stages.pictures import curves, draw
from timbrel.tracking import Record, stage_run

_TRAININGS = ("style", "train")  # steps that leave a curve
LIMIT_BYTES = 16 * 2**20
"""The most that weights in Git may have."""

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """Raises ConfigurationError, which names every wrong setting."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()), strict=False)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def ship(trained: Path, shipped: Path, *, weights: str, description: str, smaller: str) -> None:
    """Copy the two files of checked weights. Raises DataError when they are over 16 MiB; ``smaller``: what helps."""
    size = (trained / weights).stat().st_size
    if size > LIMIT_BYTES:
        raise DataError(f"{trained / weights} has {size} bytes, over {LIMIT_BYTES}: train with {smaller}")
    shipped.mkdir(parents=True, exist_ok=True)
    for name in (weights, description):
        shutil.copyfile(trained / name, shipped / name)


def run_step(
    name: str,
    steps: Mapping[str, Callable[[Settings, Path, Record], None]],
    *,
    settings: tuple[Path, type[Settings]],
    ship: Callable[[Path], None],
    about: str | None,
    arguments: list[str] | None,
) -> int:
    """The command of a pipeline: one of ``steps``, each a tracked run, or "ship".

    Returns the process's exit status: 1 with one line on stderr for anything the user can mend.
    """
    parser = argparse.ArgumentParser(prog=f"python -m timbrel.stages.{name}_pipeline", description=about)
    parser.add_argument("step", choices=(*steps, "ship"))
    step = parser.parse_args(arguments).step
    root = Path.cwd()
    try:
        path, kind = settings
        wanted = read_settings(root / path, kind)
        if step == "ship":
            ship(root)
            return 0
        parameters = wanted.model_dump(mode="json")
        pipeline = path.with_name("dvc.yaml")
        curve = step in _TRAININGS
        with stage_run(f"{name}_{step}", parameters, root, curve=curve, pipeline=pipeline) as record:
            steps[step](wanted, root, record)
            drawn = curves(record.history) if curve else draw(record.stage, root, record.final)
            for name, figure in drawn.items():
                record.figure(name, figure)
    except TimbrelError as error:
        print(f"{name} {step}: {error.message}", file=sys.stderr)
        return 1
    return 0
