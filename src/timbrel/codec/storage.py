"""A trained codec on disk: ``codec.safetensors`` (weights) and ``codec.json`` (sizes, statistics, sha256, record)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from timbrel.codec.network import DIMENSIONS, CodecConfig, MagnitudeCodec
from timbrel.codec.spectrum import BINS, FFT_SIZE, FLOOR_DB, FRAME_RATE, HOP, SAMPLE_RATE
from timbrel.errors import DataError
from timbrel.files import atomic_write, sha256_of

WEIGHTS = "codec.safetensors"
DESCRIPTION = "codec.json"


def save_codec(network: MagnitudeCodec, folder: Path, record: Mapping[str, Any]) -> None:
    """Write both files into ``folder``, the description last. ``record`` (plain values) is kept as it is.

    Weights that half precision holds exactly (``MagnitudeCodec.round_weights``) are stored in it.
    """
    tensors = {name: _shortest(tensor.detach().cpu()) for name, tensor in network.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as handle:
        handle.write(save(tensors))
    description = {
        "kind": "magnitude",
        "config": asdict(network.config),
        "sample_rate": SAMPLE_RATE,
        "frame_rate": FRAME_RATE,
        "fft_size": FFT_SIZE,
        "hop": HOP,
        "bins": BINS,
        "floor_db": FLOOR_DB,
        "dimensions": DIMENSIONS,
        "latent_mean": network.latent_mean.tolist(),
        "latent_scale": network.latent_scale.tolist(),
        "sha256": sha256_of(folder / WEIGHTS),
        "record": dict(record),
    }
    with atomic_write(folder / DESCRIPTION) as handle:
        handle.write((json.dumps(description, indent=2) + "\n").encode())


def _shortest(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return (half if torch.equal(half.to(tensor.dtype), tensor) else tensor).contiguous()


def load_codec(folder: Path) -> MagnitudeCodec:
    """The codec of ``folder``, in evaluation mode. Raises DataError when it is missing, torn, or of another layout."""
    description = describe(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise DataError(f"{weights} is missing: run the codec stage")
    if sha256_of(weights) != description["sha256"]:
        raise DataError(f"{weights} is not the file that {DESCRIPTION} names: run the codec stage again")
    network = MagnitudeCodec(CodecConfig(**description["config"]))
    try:
        network.load_state_dict(load(weights.read_bytes()))
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{weights} does not fit this version's codec: run the codec stage again") from error
    return network.eval()


def describe(folder: Path) -> dict[str, Any]:
    """The content of ``codec.json``. Raises DataError when it is missing or was made for another spectrum."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{path} is missing: run the codec stage")
    description: dict[str, Any] = json.loads(path.read_text())
    made_for = (description.get("fft_size"), description.get("hop"), description.get("floor_db"))
    if made_for != (FFT_SIZE, HOP, FLOOR_DB):
        raise DataError(f"{path} was made for another spectrum {made_for}: run the codec stage again")
    return description
