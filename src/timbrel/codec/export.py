"""The codec as two ONNX files with the names that serving knows: ``codec_encoder.onnx`` and ``codec_decoder.onnx``.

codec_encoder.onnx   log_magnitude [batch, frames, 1025] -> embedding [batch, frames, 128]
codec_decoder.onnx   embedding [batch, frames, 128]      -> log_magnitude [batch, frames, 1025]
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from timbrel.codec.network import DIMENSIONS, MagnitudeCodec
from timbrel.codec.runtime import DECODER, ENCODER
from timbrel.codec.spectrum import BINS
from timbrel.codec.storage import load_codec
from timbrel.files import atomic_write

OPSET = 17


class _Encoder(nn.Module):
    def __init__(self, codec: MagnitudeCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, log_magnitude: Tensor) -> Tensor:
        return self.codec.encode(log_magnitude)


class _Decoder(nn.Module):
    def __init__(self, codec: MagnitudeCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, embedding: Tensor) -> Tensor:
        return self.codec.decode(embedding)


def export(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write the codec of ``folder`` (data/codec) into ``out``; returns the encoder's and the decoder's path.

    Raises DataError when ``folder`` holds no sound codec.
    """
    codec = load_codec(folder)
    encoder, decoder = out / f"{ENCODER}.onnx", out / f"{DECODER}.onnx"
    _write(_Encoder(codec), torch.zeros(2, 3, BINS), "log_magnitude", "embedding", encoder)
    _write(_Decoder(codec), torch.zeros(2, 3, DIMENSIONS), "embedding", "log_magnitude", decoder)
    return encoder, decoder


def _write(module: nn.Module, example: Tensor, given: str, wanted: str, path: Path) -> None:
    axes = {0: "batch", 1: "frames"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        written = Path(folder) / path.name
        # The tracing exporter is deprecated, but it writes one self-contained file and needs no further package.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.eval(),
            (example,),
            str(written),
            input_names=[given],
            output_names=[wanted],
            dynamic_axes={given: axes, wanted: axes},
            opset_version=OPSET,
            dynamo=False,
        )
        with atomic_write(path) as handle:
            handle.write(written.read_bytes())
