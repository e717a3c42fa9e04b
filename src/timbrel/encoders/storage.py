"""The encoder on disk: two networks in a folder, each weights and a description (sizes, hash, origin). No pickle.

encoder.safetensors, encoder.json    the timbre network
style.safetensors, style.json        the style network, where there is one
features.safetensors, features.json  its blocks alone, between training and readout
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from timbrel.encoders import filterbank
from timbrel.encoders.efficientat import Features
from timbrel.encoders.style_network import WIDTH, StyleNetwork
from timbrel.encoders.timbre import Shape, TimbreEncoder, TimbreNetwork, build
from timbrel.errors import DataError
from timbrel.files import atomic_write, sha256_of

WEIGHTS, SIDECAR = "encoder.safetensors", "encoder.json"
STYLE_WEIGHTS, STYLE_SIDECAR = "style.safetensors", "style.json"
FEATURES_WEIGHTS, FEATURES_SIDECAR = "features.safetensors", "features.json"
_FORMAT, _STYLE_FORMAT = "timbrel-timbre-network-3", "timbrel-style-network-3"
_FEATURES_FORMAT = "timbrel-style-features-1"
_AGAIN = "run the encoder stage again"
Network = TypeVar("Network", bound=nn.Module)


def save(
    network: TimbreNetwork,
    folder: Path,
    metrics: Mapping[str, float],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write both files of the timbre network.

    ``origin``: source, licence and recipe of the weights, kept with them.
    """
    sizes = {
        "shape": asdict(network.shape),
        "mel": {"bands": filterbank.BANDS, "frames": filterbank.FRAMES, "hop": filterbank.HOP},
    }
    _write(network, folder / WEIGHTS, folder / SIDECAR, _FORMAT, sizes, metrics, origin)


def save_style(
    network: StyleNetwork,
    folder: Path,
    metrics: Mapping[str, float],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write both files of the style network."""
    sizes = {"size": network.size}
    _write(network, folder / STYLE_WEIGHTS, folder / STYLE_SIDECAR, _STYLE_FORMAT, sizes, metrics, origin)


def save_features(
    features: Features,
    folder: Path,
    metrics: Mapping[str, float],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write both files of the style network's blocks."""
    sizes = {"width": WIDTH}
    _write(
        features,
        folder / FEATURES_WEIGHTS,
        folder / FEATURES_SIDECAR,
        _FEATURES_FORMAT,
        sizes,
        metrics,
        origin,
    )


def describe(folder: Path) -> dict[str, Any]:
    """The timbre network's sidecar. Raises DataError when it is missing or of another format."""
    return _described(folder / SIDECAR, _FORMAT)


def describe_style(folder: Path) -> dict[str, Any]:
    """The style network's sidecar. Raises DataError when it is missing or of another format."""
    return _described(folder / STYLE_SIDECAR, _STYLE_FORMAT)


def describe_features(folder: Path) -> dict[str, Any]:
    """The blocks' sidecar. Raises DataError when it is missing or of another format."""
    return _described(folder / FEATURES_SIDECAR, _FEATURES_FORMAT)


def load(folder: Path) -> TimbreEncoder:
    """Both networks, or the one that there is, in evaluation mode.

    Raises DataError when a file is missing, torn, or does not match its hash.
    """
    network = load_network(folder)
    style = load_style(folder) if (folder / STYLE_SIDECAR).exists() else None
    return TimbreEncoder(network, style).eval()


def load_network(folder: Path) -> TimbreNetwork:
    """The timbre network in evaluation mode. Raises DataError as ``load``."""
    return _read(
        folder / WEIGHTS, folder / SIDECAR, _FORMAT, lambda sidecar: build(shape_of(sidecar["shape"]))
    )


def load_style(folder: Path) -> StyleNetwork:
    """The style network in evaluation mode. Raises DataError as ``load``."""
    return _read(
        folder / STYLE_WEIGHTS,
        folder / STYLE_SIDECAR,
        _STYLE_FORMAT,
        lambda sidecar: StyleNetwork(int(sidecar["size"])),
    )


def load_features(folder: Path) -> Features:
    """The style network's blocks in evaluation mode. Raises DataError as ``load``."""
    return _read(
        folder / FEATURES_WEIGHTS,
        folder / FEATURES_SIDECAR,
        _FEATURES_FORMAT,
        lambda sidecar: Features(float(sidecar["width"])),
    )


def _write(
    network: nn.Module,
    weights: Path,
    described: Path,
    form: str,
    sizes: Mapping[str, Any],
    metrics: Mapping[str, float],
    origin: Mapping[str, Any] | None,
) -> None:
    """The sidecar last, so that it never describes weights that are not there."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(weights) as handle:
        handle.write(safetensors.torch.save(tensors))
    sidecar = {
        "format": form,
        **sizes,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "sha256": sha256_of(weights),
        "metrics": dict(metrics),
        "origin": dict(origin or {}),
    }
    with atomic_write(described) as handle:
        handle.write((json.dumps(sidecar, indent=2) + "\n").encode())


def _described(path: Path, form: str) -> dict[str, Any]:
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable; {_AGAIN}.") from error
    if not isinstance(sidecar, dict) or sidecar.get("format") != form:
        raise DataError(f"{path}: not an encoder of this version; {_AGAIN}.")
    return sidecar


def _read(weights: Path, described: Path, form: str, make: Callable[[dict[str, Any]], Network]) -> Network:
    sidecar = _described(described, form)
    if not weights.exists() or sha256_of(weights) != sidecar["sha256"]:
        raise DataError(f"{weights}: not the file that {described.name} describes; {_AGAIN}.")
    try:
        network = make(sidecar)
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"{weights}: weights of another network; {_AGAIN}.") from error
    return network.eval()


def shape_of(sidecar: Mapping[str, Any]) -> Shape:
    """A Shape from its JSON form. Raises TypeError or ValueError when it is none."""
    stem, low, middle, high = map(int, sidecar["channels"])
    return Shape(
        channels=(stem, low, middle, high),
        embedding_size=int(sidecar["embedding_size"]),
    )
