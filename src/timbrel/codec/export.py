"""The codec as two ONNX files with the names that serving knows: ``codec_encoder.onnx`` and ``codec_decoder.onnx``.

codec_encoder.onnx   log_magnitude [batch, frames, 1025] -> embedding [batch, frames, 128]
codec_decoder.onnx   embedding [batch, frames, 128]      -> log_magnitude [batch, frames, 1025]
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Literal, Protocol

import onnx
import torch
from torch import Tensor, nn

from timbrel.codec.network import DIMENSIONS
from timbrel.codec.runtime import DECODER, ENCODER
from timbrel.codec.spectrum import BINS
from timbrel.codec.storage import load_codec
from timbrel.files import atomic_write
from timbrel.half_weights import halve

OPSET = 17


class HasTwoHalves(Protocol):
    def encode(self, given: Tensor, /) -> Tensor: ...

    def decode(self, given: Tensor, /) -> Tensor: ...


class Half(nn.Module):
    """One direction of a codec network as a module of its own, as the exporter wants it."""

    def __init__(self, codec: HasTwoHalves, method: Literal["encode", "decode"]) -> None:
        super().__init__()
        self.codec = codec
        self._method = method

    def forward(self, given: Tensor) -> Tensor:
        return self.codec.encode(given) if self._method == "encode" else self.codec.decode(given)


def export(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write the codec of ``folder`` (data/codec) into ``out``; returns the encoder's and the decoder's path.

    Raises DataError when ``folder`` holds no sound codec.
    """
    codec = load_codec(folder)
    encoder, decoder = out / f"{ENCODER}.onnx", out / f"{DECODER}.onnx"
    # Corrections use the decoder's weights as they are and transposed: folded, each would be kept twice.
    write_graph(
        Half(codec, "encode"), torch.zeros(2, 3, BINS), "log_magnitude", "embedding", encoder, fold=False
    )
    write_graph(Half(codec, "decode"), torch.zeros(2, 3, DIMENSIONS), "embedding", "log_magnitude", decoder)
    return encoder, decoder


def write_graph(
    module: nn.Module, example: Tensor, given: str, wanted: str, path: Path, *, fold: bool = True
) -> None:
    """Trace ``module`` on ``example`` and write it; the first two axes of its input and output are free.

    ``fold``: keep what follows from constants as constants of its own. Weights that half precision holds exactly are
    kept in it (``halve``).
    """
    axes = {name: {0: "batch", 1: "samples" if name == "audio" else "frames"} for name in (given, wanted)}
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
            dynamic_axes=axes,
            do_constant_folding=fold,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(written)
        halve(model)
        with atomic_write(path) as handle:
            handle.write(model.SerializeToString())
