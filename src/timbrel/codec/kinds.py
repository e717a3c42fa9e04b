"""The codecs that a folder data/codec may hold, opened, exported and described alike; ``kind`` in codec.json tells.

    magnitude    network.py, storage.py, export.py: trained by the pipeline
    encodec      encodec.py, encodec_weights.py: weights that the user supplies

codec_encoder.onnx   magnitude: log_magnitude [batch, frames, 1025]    encodec: audio [batch, samples]  -> embedding
codec_decoder.onnx   embedding [batch, frames, 128] -> log_magnitude, or audio [batch, frames * 320]
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timbrel.codec import export
from timbrel.codec.encodec import DIMENSIONS, HOP, Encodec
from timbrel.codec.encodec_weights import load_encodec
from timbrel.codec.in_process import TorchModels
from timbrel.codec.runtime import DECODER, ENCODER, Codec, EncodecRuntime, MagnitudeCodecRuntime
from timbrel.codec.storage import DESCRIPTION, WEIGHTS, load_codec
from timbrel.errors import DataError

KINDS = ("magnitude", "encodec")


def describe(folder: Path) -> dict[str, Any]:
    """The content of ``codec.json``; its ``kind`` is one of ``KINDS``.

    Raises DataError when ``folder`` holds no codec that this version knows.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{path} is missing: run the codec stage")
    description: dict[str, Any] = json.loads(path.read_text())
    kind = description.get("kind")
    if kind not in KINDS:
        raise DataError(f"{path} is of kind {kind!r}, not {' or '.join(KINDS)}: run the codec stage again")
    return description


def open_codec(folder: Path, device: torch.device | str = "cpu") -> Codec:
    """The codec of ``folder``, run by torch on ``device``. Raises DataError when it is missing, torn or unknown."""
    if describe(folder)["kind"] == "encodec":
        return EncodecRuntime(EncodecModels(load_encodec(folder).network.to(device)))
    return MagnitudeCodecRuntime(TorchModels(load_codec(folder).to(device)))


def export_codec(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write the codec of ``folder`` into ``out`` as codec_encoder.onnx and codec_decoder.onnx; returns their paths.

    Raises DataError when it is missing, torn or unknown.
    """
    if describe(folder)["kind"] == "magnitude":
        return export.export(folder, out)
    network = load_encodec(folder).network
    encoder, decoder = out / f"{ENCODER}.onnx", out / f"{DECODER}.onnx"
    with warnings.catch_warnings():
        # Of LSTMs whose first state has a fixed batch (these make it from their input's), and, in torch's own LSTM, of
        # the checks of its input, which do not change.
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("ignore", category=Warning, module=r"torch\.nn\.")
        halves = export.Half(network, "encode"), export.Half(network, "decode")
        # Codebooks are looked up by row and multiplied by column: folded, both would be kept.
        export.write_graph(halves[0], torch.zeros(2, 9 * HOP + 1), "audio", "embedding", encoder, fold=False)
        export.write_graph(halves[1], torch.zeros(2, 9, DIMENSIONS), "embedding", "audio", decoder)
    return encoder, decoder


def provenance(folder: Path) -> tuple[str, str]:
    """(source, licence) of the codec's weights, in words for the bundle's manifest."""
    description = describe(folder)
    if description["kind"] == "encodec":
        return description["source"], description["licence"]
    record = description["record"]
    source = record.get("source", "trained by this pipeline")
    return f"magnitude codec, {source}; {WEIGHTS} sha256 {description['sha256']}", record.get(
        "licence", "CC0-1.0"
    )


class EncodecModels:
    """``codec_encoder`` and ``codec_decoder`` of one EnCodec network (``runtime.RunsModels``)."""

    def __init__(self, network: Encodec) -> None:
        self._network = network.eval()
        self._device = network.codebooks.device

    @torch.inference_mode()
    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if model == ENCODER:
            return {"embedding": self._network.encode(self._tensor(inputs["audio"])).cpu().numpy()}
        if model == DECODER:
            return {"audio": self._network.decode(self._tensor(inputs["embedding"])).cpu().numpy()}
        raise KeyError(model)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)
