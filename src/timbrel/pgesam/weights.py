"""Trained modules on disk: ``<name>.safetensors`` and ``<name>.json`` beside it (shape, sha256 of the weights, facts).

Nothing is ever unpickled. The JSON is written last, so a folder with it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import safetensors.torch
from torch import nn

from timbrel.errors import DataError
from timbrel.files import atomic_write, sha256_of


class Shaped(Protocol):
    """A torch module that knows its shape as a dataclass."""

    @property
    def shape(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...


Module = TypeVar("Module", bound=nn.Module)


def save(module: Shaped, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write the module's weights (fp32) and shape to ``folder``, with ``facts`` (plain JSON values) for the record."""
    weights = folder / f"{name}.safetensors"
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    with atomic_write(weights) as handle:
        handle.write(safetensors.torch.save(state))
    content = {"sha256": sha256_of(weights), "shape": asdict(module.shape), **facts}
    with atomic_write(folder / f"{name}.json") as handle:
        handle.write(json.dumps(content, indent=2, sort_keys=True).encode())


def load(folder: Path, name: str, build: Callable[[dict[str, Any]], Module]) -> tuple[Module, dict[str, Any]]:
    """The module that ``build`` makes of the saved shape, with its weights, in evaluation mode; and its JSON.

    Raises DataError when missing or altered.
    """
    weights, description = folder / f"{name}.safetensors", folder / f"{name}.json"
    if not weights.exists() or not description.exists():
        raise DataError(f"{folder} holds no trained {name}: run the {name} stage (dvc repro {name})")
    content = json.loads(description.read_text())
    if sha256_of(weights) != content["sha256"]:
        raise DataError(
            f"{weights} does not match its sha256 in {description.name}: run the {name} stage again"
        )
    shape = {key: tuple(v) if isinstance(v, list) else v for key, v in content["shape"].items()}
    module = build(shape)
    module.load_state_dict(safetensors.torch.load_file(weights))
    return module.eval(), content
