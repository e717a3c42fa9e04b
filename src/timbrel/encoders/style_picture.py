"""The mel picture that the style network and its teacher see, and how much of it a sound fills.

The picture is that of EfficientAT (``efficientat_mel``), computed at 24 kHz: a frame of 768 samples has the same bins
of 31.25 Hz as one of 1,024 at 32 kHz, and the pre-emphasis is a gain of each bin. On it lies a floor, the mean power of
white noise 40 dB below the clip's loudest 100 ms: what is softer is hardly heard, and differs between any two
recordings. (With it the teacher orders sweeps of a parameter better, Spearman .980 against .976 on the 72 sweeps of two
presets each that this was developed on, and bears noise better.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import efficientat_mel as mel
from timbrel.encoders.frontend import CLIP_SAMPLES, REFERENCE_RMS, SAMPLE_RATE

WINDOW = mel.WINDOW * SAMPLE_RATE // mel.SAMPLE_RATE
HOP = mel.HOP * SAMPLE_RATE // mel.SAMPLE_RATE
FFT_SIZE = mel.FFT_SIZE * SAMPLE_RATE // mel.SAMPLE_RATE
FRAMES = CLIP_SAMPLES // HOP
FLOOR_DB = -40.0
_LEAST = 1e-5
_BLOCK = 2 * HOP  # 20 ms: one period of the lowest note still fits in
_SILENT = 1e-6  # -60 dB
_FEWEST = 20  # 0.2 s: the network wants some frames


def band_weights() -> np.ndarray:
    """What each of the 385 bins gives to each of 128 bands, pre-emphasis and sampling rate included: [385, 128]."""
    bins = np.arange(FFT_SIZE // 2 + 1)
    turn = 2.0 * np.pi * bins / mel.FFT_SIZE
    emphasis = 1.0 + mel.PRE_EMPHASIS**2 - 2.0 * mel.PRE_EMPHASIS * np.cos(turn)
    scale = (mel.SAMPLE_RATE / SAMPLE_RATE) ** 2  # so many more samples are in a window there
    return mel.filters()[: len(bins)] * (scale * emphasis)[:, None]


def white_noise(decibels: float) -> np.ndarray:
    """Mean powers of white noise in the bands, [128], so far above a clip's loudest 100 ms."""
    power = REFERENCE_RMS**2 * 10.0 ** (decibels / 10.0)
    return power * np.square(np.hanning(WINDOW)).sum() * band_weights().sum(axis=0)


class StylePicture(nn.Module):
    """Clips [b, 72000] to mel pictures [b, 1, 128, 300]: frames are matrix products, as in ``efficientat_audio``."""

    cosine: Tensor
    sine: Tensor
    bands: Tensor
    floor: Tensor
    early: Tensor
    late: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = band_weights()
        half = np.arange(WINDOW // 2)
        angle = 2.0 * np.pi * (half[:, None] - (WINDOW - 1) / 2) * np.arange(len(weights)) / FFT_SIZE
        shape = np.hanning(WINDOW)[: WINDOW // 2, None]
        starts = np.arange(FRAMES)[:, None] * HOP
        for name, values in (
            ("cosine", (shape * np.cos(angle)).astype(np.float32)),
            ("sine", (shape * np.sin(angle)).astype(np.float32)),
            ("bands", weights.astype(np.float32)),
            ("floor", white_noise(FLOOR_DB).astype(np.float32)),
            ("early", starts + half),
            ("late", starts + (WINDOW - 1) - half),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        edge = WINDOW // 2
        padded = functional.pad(audio[:, None], (edge, edge), mode="reflect")[:, 0]
        early, late = padded[:, self.early], padded[:, self.late]
        real = torch.matmul(early + late, self.cosine)
        imaginary = torch.matmul(late - early, self.sine)
        powers = torch.matmul(real * real + imaginary * imaginary, self.bands)
        return to_picture(powers + self.floor).transpose(1, 2)[:, None]


def to_picture(powers: Tensor) -> Tensor:
    """Powers of bands as EfficientAT wants to see them."""
    return (torch.log(powers + _LEAST) + 4.5) / 5.0


def to_powers(picture: Tensor) -> Tensor:
    """The inverse of ``to_picture``."""
    return torch.exp(5.0 * picture - 4.5) - _LEAST


def heard_frames(audio: Tensor) -> Tensor:
    """Frames of each clip [b, 72000] up to its last 20 ms within 60 dB of its loudest: int64 [b], at least 20."""
    power = audio.reshape(audio.shape[0], -1, _BLOCK).square().mean(dim=2)
    sounding = (power > _SILENT * power.amax(dim=1, keepdim=True)).to(torch.int64)
    last = (sounding * torch.arange(1, power.shape[1] + 1, device=audio.device)).amax(dim=1)
    return (last * (_BLOCK // HOP)).clamp_min(_FEWEST)
