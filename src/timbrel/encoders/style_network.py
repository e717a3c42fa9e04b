"""The style network: what a sound is like, from how the maps of a network of EfficientAT's shape are distributed.

    clip [b, 72000] ─► picture [b, 1, 128, 300] ─┬► 17 blocks ─► mean, deviation of every channel ─┬► [b, 3260]
           └─► frames up to the last sound [b] ──┴──► spectrum, course, modulation, deviation ─────┘     │
                                        style [b, s] ◄─ principal axes ◄─ standardised, bounded, weighted

The picture is that of EfficientAT (``efficientat_mel``), computed at 24 kHz: a frame of 768 samples has the same bins
of 31.25 Hz as one of 1,024 at 32 kHz, and the pre-emphasis is a gain of each bin. On it lies a floor, the mean power of
white noise 40 dB below the clip's loudest 100 ms: what is softer is hardly heard, and differs between any two
recordings. (With it the teacher orders sweeps of a parameter better, Spearman .980 against .976 on the 72 sweeps of two
presets each that this was developed on, and bears noise better.)
What follows a short note's end does not count: a pause is no part of its timbre.

Bounded by a hyperbolic tangent, and only then reduced to principal components: so one channel that is nearly constant
in most sounds cannot outweigh all others in the one where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import efficientat_mel as mel
from timbrel.encoders.efficientat import Features
from timbrel.encoders.frontend import CLIP_SAMPLES, REFERENCE_RMS, SAMPLE_RATE
from timbrel.encoders.picture_statistics import SIZES, PictureStatistics
from timbrel.encoders.style import statistics

WIDTH = 0.4
WINDOW = mel.WINDOW * SAMPLE_RATE // mel.SAMPLE_RATE
HOP = mel.HOP * SAMPLE_RATE // mel.SAMPLE_RATE
FFT_SIZE = mel.FFT_SIZE * SAMPLE_RATE // mel.SAMPLE_RATE
FRAMES = CLIP_SAMPLES // HOP
FLOOR_DB = -40.0
PICTURE_WEIGHTS = {"spectrum": 12.0, "course": 20.0, "modulation": 8.0, "deviation": 5.0}
"""What the picture's own statistics are worth, a block being worth 1; chosen on 576 sweeps (seeds 31 to 34 of
``timbrel evaluate sweeps --presets 4``), none of which is in the report."""
_LEAST = 1e-5
_EPSILON = 1e-5
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


class Bounded(nn.Module):
    """Features [b, n] standardised by those it was fitted to, bounded to (-1, 1), and weighted."""

    mean: Tensor
    scale: Tensor
    weight: Tensor

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(weight)))
        self.register_buffer("scale", torch.ones(len(weight)))
        self.register_buffer("weight", torch.from_numpy(weight.astype(np.float32)), persistent=False)
        self.variance = 1.0
        """Of what it gives, over the features it was fitted to."""

    def forward(self, raw: Tensor) -> Tensor:
        return torch.tanh((raw - self.mean) * self.scale) * self.weight

    @torch.no_grad()
    def fit(self, raw: Tensor) -> None:
        """Take means and deviations from features [n, d] of many sounds."""
        raw = raw.double()
        self.mean.copy_(raw.mean(dim=0))
        self.scale.copy_(raw.std(dim=0, unbiased=False).clamp_min(1e-6).reciprocal())
        self.variance = float(self(raw.float()).var(dim=0, unbiased=False).sum())


def block_weights(channels: Sequence[int]) -> np.ndarray:
    """Weights of means and deviations with which each block counts alike, however many channels it has."""
    counts = 2 * np.array(channels)
    return np.repeat(counts**-0.5, counts)


class StyleNetwork(nn.Module):
    """Pictures [b, 1, 128, frames], of which the first ``heard`` [b] frames count, to styles [b, s].

    Styles have a mean square length of 1 over the sounds that ``calibrate`` was given.
    """

    centre: Tensor
    axes: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.features = Features(WIDTH)
        self.of_picture = PictureStatistics()
        of_picture = np.concatenate(
            [np.full(size, (PICTURE_WEIGHTS[name] / size) ** 0.5) for name, size in SIZES.items()]
        )
        self.bounded = Bounded(np.concatenate([block_weights(self.features.channels), of_picture]))
        width = len(self.bounded.weight)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width, size))

    @property
    def size(self) -> int:
        """s, how many numbers a style has."""
        return self.axes.shape[1]

    def raw(self, picture: Tensor, heard: Tensor) -> Tensor:
        """Statistics of all blocks and of the picture, [b, 3260]."""
        return torch.cat(
            [statistics(*self.features.blocks(picture, heard)), self.of_picture(picture, heard)], dim=1
        )

    def forward(self, picture: Tensor, heard: Tensor) -> Tensor:
        return torch.matmul(self.bounded(self.raw(picture, heard)) - self.centre, self.axes)

    @torch.no_grad()
    def calibrate(self, raw: Tensor, seed: int = 0) -> float:
        """Take scales and principal axes from ``raw`` [n, 3260] of many sounds; returns the variance kept.

        The axes are turned at random: so all numbers of a style weigh alike, and L1 distances order as cosines do.
        """
        self.bounded.fit(raw)
        bounded = self.bounded(raw).double()
        self.centre.copy_(bounded.mean(dim=0))
        centred = bounded - bounded.mean(dim=0)
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        chosen = variance.argsort(descending=True)[: self.size]
        random = torch.from_numpy(np.random.default_rng(seed).standard_normal((self.size, self.size)))
        turned = axes[:, chosen] @ torch.linalg.qr(random)[0]
        # In numbers that half precision holds: the exported file is so much smaller.
        self.axes.copy_((turned / variance[chosen].sum().sqrt()).half())
        return float(variance[chosen].sum() / variance.sum())
