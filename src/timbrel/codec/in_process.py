"""The codec's two models run by torch, under the names they have once exported: for the stages before the export."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from timbrel.codec.network import MagnitudeCodec
from timbrel.codec.runtime import DECODER, ENCODER


class TorchModels:
    """``codec_encoder`` and ``codec_decoder`` of one network (``runtime.RunsModels``)."""

    def __init__(self, network: MagnitudeCodec) -> None:
        self._network = network.eval()
        self._device = network.mean.device

    @torch.inference_mode()
    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if model == ENCODER:
            given = torch.from_numpy(inputs["log_magnitude"]).to(self._device)
            return {"embedding": self._network.encode(given).cpu().numpy()}
        if model == DECODER:
            given = torch.from_numpy(inputs["embedding"]).to(self._device)
            return {"log_magnitude": self._network.decode(given).cpu().numpy()}
        raise KeyError(model)
