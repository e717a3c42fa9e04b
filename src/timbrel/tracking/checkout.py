"""What runs say of the checkout they were made in: its revision, its settings, its stages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from timbrel.files import sha256_of


@dataclass(frozen=True)
class Checkout:
    """Files of the checkout at ``root`` by their path in it: as they lie there, or as they are at a Git revision."""

    root: Path
    revision: str | None = None

    def read(self, path: Path) -> bytes | None:
        """None where there is no such file."""
        if self.revision is not None:
            return git(self.root, "show", f"{self.revision}:{path.as_posix()}")
        try:
            return (self.root / path).read_bytes()
        except OSError:
            return None

    def read_yaml(self, path: Path) -> dict[str, Any]:
        """A YAML (or JSON) file; empty where there is none, or none that can be read."""
        try:
            values = yaml.safe_load(self.read(path) or b"")
        except yaml.YAMLError:
            return {}
        return values if isinstance(values, dict) else {}


@dataclass(frozen=True)
class Stage:
    """A stage of a dvc.yaml: the paths that it reads and makes, less modules and its report."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def stages(checkout: Checkout, pipeline: Path) -> dict[str, Stage]:
    """The stages of a dvc.yaml, all of whose paths are from the checkout's root."""
    found = checkout.read_yaml(pipeline).get("stages", {})
    return {
        name: Stage(_paths(entry.get("deps", ()), "src/"), _paths(entry.get("outs", ()), "reports/stages/"))
        for name, entry in found.items()
    }


def before(stages: Mapping[str, Stage], chosen: set[str]) -> set[str]:
    """The stages that ``chosen`` ones depend on, directly or not, less these."""
    maker = {path: name for name, stage in stages.items() for path in stage.outputs}
    found: set[str] = set()
    waiting = [name for name in chosen if name in stages]
    while waiting:
        for path in stages[waiting.pop()].inputs:
            # A report of a stage that is read names the stage, too.
            name = maker.get(path, Path(path).stem if path.startswith("reports/stages/") else None)
            if name is not None and name in stages and name not in found | chosen:
                found.add(name)
                waiting.append(name)
    return found


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``; lists stay whole."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def tags(root: Path) -> dict[str, str]:
    """What a run says of the checkout at ``root``: git revision, whether the tree had changes, hash of ``dvc.lock``."""
    found = {"mlflow.source.type": "LOCAL"}
    revision = git(root, "rev-parse", "HEAD")
    if revision:
        found["mlflow.source.git.commit"] = revision.decode().strip()
        changed = git(root, "status", "--porcelain", "--untracked-files=no")
        found["timbrel.dirty"] = json.dumps(bool(changed))
    lock = root / "dvc.lock"
    if lock.exists():
        found["timbrel.dvc_lock"] = sha256_of(lock)
    return found


def git(root: Path, *arguments: str) -> bytes | None:
    """Output of a git command; None where it fails, or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _paths(entries: list[str | dict[str, Any]], less: str) -> tuple[str, ...]:
    """An entry is a path, or a path with options."""
    paths = (entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)
    return tuple(path for path in paths if not path.startswith(less))
