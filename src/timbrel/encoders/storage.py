"""The encoder on disk: ``encoder.safetensors`` and ``encoder.json`` (configuration, sizes, hash). No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from timbrel.encoders import filterbank
from timbrel.encoders.timbre import Blend, Shape, TimbreNetwork, build
from timbrel.errors import DataError
from timbrel.files import atomic_write, sha256_of

WEIGHTS = "encoder.safetensors"
SIDECAR = "encoder.json"
_FORMAT = "timbrel-timbre-encoder-2"


def save(
    network: TimbreNetwork,
    folder: Path,
    metrics: Mapping[str, float],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write both files; the sidecar last, so that it never describes weights that are not there.

    ``origin``: source, licence and recipe of the weights, kept with them.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as handle:
        handle.write(safetensors.torch.save(tensors))
    sidecar = {
        "format": _FORMAT,
        "shape": asdict(network.shape),
        "blend": asdict(network.blend),
        "stage2_size": network.stage2_size,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "mel": {"bands": filterbank.BANDS, "frames": filterbank.FRAMES, "hop": filterbank.HOP},
        "sha256": sha256_of(folder / WEIGHTS),
        "metrics": dict(metrics),
        "origin": dict(origin or {}),
    }
    with atomic_write(folder / SIDECAR) as handle:
        handle.write((json.dumps(sidecar, indent=2) + "\n").encode())


def describe(folder: Path) -> dict[str, Any]:
    """The sidecar. Raises DataError when it is missing or of another format."""
    try:
        sidecar = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SIDECAR}: not readable; run the encoder stage again.") from error
    if not isinstance(sidecar, dict) or sidecar.get("format") != _FORMAT:
        raise DataError(
            f"{folder / SIDECAR}: not a timbre encoder of this version; run the encoder stage again."
        )
    return sidecar


def load(folder: Path) -> TimbreNetwork:
    """The network in evaluation mode. Raises DataError when a file is missing, torn, or does not match its hash."""
    sidecar = describe(folder)
    weights = folder / WEIGHTS
    if not weights.exists() or sha256_of(weights) != sidecar["sha256"]:
        raise DataError(f"{weights}: not the file that {SIDECAR} describes; run the encoder stage again.")
    try:
        network = build(shape_of(sidecar["shape"]), Blend(**sidecar["blend"]))
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"{weights}: weights of another network; run the encoder stage again.") from error
    return network.eval()


def shape_of(sidecar: Mapping[str, Any]) -> Shape:
    """A Shape from its JSON form. Raises TypeError or ValueError when it is none."""
    stem, low, middle, high = map(int, sidecar["channels"])
    return Shape(
        channels=(stem, low, middle, high),
        embedding_size=int(sidecar["embedding_size"]),
        style=int(sidecar["style"]),
    )
