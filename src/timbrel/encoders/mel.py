"""The mel front end inside the network, in operations that every ONNX runtime has: Gather, Add, MatMul.

A real DFT of a windowed frame is two matrix products. Because the window is symmetric, sample ``n`` and its
mirror ``N - n`` share a row of the cosine matrix and, but for the sign, one of the sine matrix, so each
product needs half the rows:

    Re X[k] =   sum_{n=1..N/2}  w[n] (x[n] + x[N-n]) cos(2 pi k n / N)      (the row n = N/2 halved)
    Im X[k] = - sum_{n=1..N/2}  w[n] (x[n] - x[N-n]) sin(2 pi k n / N)      (w[0] = 0: sample 0 drops out)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import filterbank


class PowerMel(nn.Module):
    """Clips ``[b, 72000]`` to mel powers ``[b, 80, 120]`` (bands, frames); the numbers of ``filterbank.power_mel``."""

    forwards: Tensor
    backwards: Tensor
    cosine: Tensor
    sine: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        half = np.arange(1, filterbank.FRAME // 2 + 1)
        bins = np.arange(filterbank.FRAME // 2 + 1)
        starts = np.arange(filterbank.FRAMES)[:, None] * filterbank.HOP
        angle = 2.0 * np.pi * half[:, None] * bins[None, :] / filterbank.FRAME
        shape = filterbank.window()[half, None] * np.sqrt(filterbank.power_scale())
        cosine = shape * np.cos(angle)
        cosine[-1] *= 0.5
        # Derived from constants, so not part of the weight file.
        self.register_buffer("forwards", torch.from_numpy(starts + half), persistent=False)
        self.register_buffer(
            "backwards", torch.from_numpy(starts + filterbank.FRAME - half), persistent=False
        )
        self.register_buffer("cosine", _float32(cosine), persistent=False)
        self.register_buffer("sine", _float32(shape * np.sin(angle)), persistent=False)
        self.register_buffer("bands", _float32(filterbank.filters()), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        padded = functional.pad(audio, (filterbank.PADDING, filterbank.PADDING))
        early, late = padded[:, self.forwards], padded[:, self.backwards]
        real = torch.matmul(early + late, self.cosine)
        imaginary = torch.matmul(early - late, self.sine)
        power = real * real + imaginary * imaginary
        return torch.matmul(power, self.bands).transpose(1, 2)


def log_mel(power: Tensor) -> Tensor:
    """Mel powers to the network's input, about -1 (the floor, -60 dB) to 1 (0 dB)."""
    return torch.log10(power + filterbank.FLOOR) / 3.0 + 1.0


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
