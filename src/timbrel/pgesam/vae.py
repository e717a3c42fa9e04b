"""Stage 1: a variational autoencoder whose mean, of two dimensions (or three or four), is the timbre map.

    embedding [b, frames, 128]
        │  means and deviations over spans of time that double in length: 0-1, 1-2, 2-4 … 64-128, 128-150
        │  and a comb over the spectrum that they decode to (comb.py)
        ├── linear layers, normed ──► timbre head ──► μ, log σ² [b, 2]
        └── linear layer, normed ──► pitch head  ──► 25 logits      (reads the comb, never z)
    z = μ + σ ε β, one-hot of the predicted pitch ──► mirrored stack ──► embedding

On μ sit a family and an instrument classifier, which shape the map during training only.

The published encoder is five strided convolutions. Here it is a fixed summary over time and linear layers: which of
the 128 numbers move together tells pitch and colour, and a convolution that squeezes them into 64 channels first has to
find that again. Trained on the neighbour and pitch losses alone, held-out V_inst / V_pitch was 0.018 after 150 s with
convolutions and 0.009 after 85 s with the summary. EnCodec's frames stand for no spectrum: there the pitch head reads
the summary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.pgesam import weights
from timbrel.pgesam.comb import PitchComb
from timbrel.pgesam.dataset import LOWEST_PITCH
from timbrel.pgesam.linear import Doubling, Linear

SLOPE = 0.2
# The map is given the variance of a ball of this radius, evenly filled: most points then lie in the unit ball.
MAP_RADIUS = 0.9
# How fast the statistics for evaluation follow the batches.
WHITENING_MOMENTUM = 0.05
FIRST_LOG_VARIANCE = -4.0
SHORTEST_MOVING_SPAN = 16
SMALLEST_VARIANCE = 1e-4
FAMILY_WIDTHS = (4, 8, 16, 32)
INSTRUMENT_WIDTHS = (4, 8, 16, 32, 64, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeShape:
    """Everything that fixes the shapes of the weights.

    ``spectrum_hidden``: hidden units of the codec's decoder, through which the pitch head looks; 0: there is none.
    """

    instruments: int
    frames: int = 150
    dimensions: int = 128
    channels: tuple[int, ...] = (64, 96, 128, 192, 128)
    hidden: tuple[int, ...] = (512, 384, 256, 256)
    head_width: int = 256
    pitches: int = 25
    families: int = 11
    dropout: float = 0.1
    map_dimensions: int = 2
    spectrum_hidden: int = 0

    @property
    def coarse_frames(self) -> int:
        """Frames left after the strided convolutions: 150 → 75 → 38 → 19 → 10 → 5."""
        frames = self.frames
        for _ in self.channels:
            frames = (frames + 1) // 2
        return frames

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Frames that the encoder looks at together: 0-1, 1-2, 2-4, 4-8 … and what is left."""
        edges = [0, 1]
        while 2 * edges[-1] < self.frames:
            edges.append(2 * edges[-1])
        return tuple(pairwise([*edges, self.frames]))

    @property
    def map_deviation(self) -> float:
        """Standard deviation of each axis of the map: that of an evenly filled ball, radius / √(d + 2)."""
        return MAP_RADIUS / math.sqrt(self.map_dimensions + 2)


class VaeOutput(NamedTuple):
    """One forward pass; shapes as in the module docstring."""

    mu: Tensor
    log_variance: Tensor
    pitch_logits: Tensor
    family_logits: Tensor
    instrument_logits: Tensor
    reconstruction: Tensor


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each frame of [b, frames, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed


class Whitening(nn.Module):
    """Map points with zero mean, equal variance and no correlation over the batch; running statistics when evaluating.

    It rules out the two ways in which the map fails early: all μ near the origin, and both axes telling the same.
    Without it every schedule that was tried shrank V_pitch below V_inst within 200 steps (0.0002 against 0.006); with
    it the same network has 0.39 against 0.02 there. The idea is batch normalisation of μ against posterior collapse
    (Zhu et al. 2020), with the correlation removed as well: by the Cholesky factor of the d × d covariance, and forward
    substitution, both written out (ONNX has neither).
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, dimensions: int, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("covariance", torch.eye(dimensions))

    def forward(self, raw: Tensor) -> Tensor:
        """[b, d] → [b, d], each axis with standard deviation ``deviation``."""
        if self.training:
            mean = raw.mean(0)
            centred = raw - mean
            covariance = centred.T @ centred / len(raw) + 1e-5 * torch.eye(raw.shape[1], device=raw.device)
            with torch.no_grad():
                self.mean.lerp_(mean, WHITENING_MOMENTUM)
                self.covariance.lerp_(covariance, WHITENING_MOMENTUM)
        else:
            centred, covariance = raw - self.mean, self.covariance
        factor: list[list[Tensor]] = []
        whitened: list[Tensor] = []
        for i in range(len(self.mean)):
            row: list[Tensor] = []
            for j in range(i):
                known = sum((row[k] * factor[j][k] for k in range(j)), torch.zeros_like(covariance[i, j]))
                row.append((covariance[i, j] - known) / factor[j][j])
            left = covariance[i, i] - sum(
                (value * value for value in row), torch.zeros_like(covariance[i, i])
            )
            row.append(left.clamp_min(1e-6).sqrt())
            explained = sum((row[k] * whitened[k] for k in range(i)), torch.zeros_like(centred[:, i]))
            whitened.append((centred[:, i] - explained) / row[i])
            factor.append(row)
        return self.deviation * torch.stack(whitened, dim=1)


def _normed_stack(widths: Sequence[int], dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [Linear(before, after), nn.LayerNorm(after), nn.LeakyReLU(SLOPE), nn.Dropout(dropout)]
    return layers


def _linear_stack(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = Linear(before, after)
        # torch's default gain would halve the signal at each of these layers, which have no norm of their own.
        nn.init.kaiming_normal_(linear.weight, a=SLOPE, nonlinearity="leaky_relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(SLOPE), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def _classifier(before: int, widths: Sequence[int], classes: int) -> nn.Sequential:
    return nn.Sequential(*_linear_stack((before, *widths), 0.0), Linear(widths[-1], classes))


def _head(before: int, width: int, after: int) -> nn.Sequential:
    return nn.Sequential(*list(_linear_stack((before, width), 0.0))[:2], Linear(width, after))


class MapEncoder(nn.Module):
    """Embedding to map point and pitch: the part of the VAE that serving uses."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        spans = shape.spans
        self.moving = [(start, end) for start, end in spans if end - start >= SHORTEST_MOVING_SPAN]
        self.width = (len(spans) + len(self.moving)) * shape.dimensions
        self.timbre = nn.Sequential(
            *_normed_stack((self.width, *shape.hidden), shape.dropout),
            *_head(shape.hidden[-1], shape.head_width, 2 * shape.map_dimensions),
        )
        # A σ of 1 from the start would drown the small first μ, and the decoder would learn to ignore the map.
        last = self.timbre[-1]
        if isinstance(last, Linear):
            with torch.no_grad():
                last.bias[shape.map_dimensions :] = FIRST_LOG_VARIANCE
                last.weight[: shape.map_dimensions].normal_(std=shape.head_width**-0.5)
        self.whitening = Whitening(shape.map_dimensions, shape.map_deviation)
        self.comb = (
            PitchComb(shape.spectrum_hidden, shape.dimensions, shape.pitches, LOWEST_PITCH)
            if shape.spectrum_hidden
            else None
        )
        read = self.width if self.comb is None else self.comb.width
        self.pitch = nn.Sequential(
            *_normed_stack((read, shape.hidden[0]), shape.dropout), Linear(shape.hidden[0], shape.pitches)
        )

    def summary(self, embedding: Tensor) -> Tensor:
        """[b, frames, 128] → [b, width and the comb's]: means over spans of time that double in length, deviations over
        the longer ones (vibrato, tremolo, decay), and the comb, where there is one."""
        means = [embedding[:, start:end].mean(1) for start, end in self.shape.spans]
        motion = []
        for start, end in self.moving:
            span = embedding[:, start:end]
            motion.append(((span - span.mean(1, keepdim=True)).square().mean(1) + SMALLEST_VARIANCE).sqrt())
        comb = [] if self.comb is None else [self.comb(embedding)]
        return torch.cat([*means, *motion, *comb], dim=1)

    def place(self, summary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summaries → μ [b, d], log σ² [b, d], pitch logits [b, 25]."""
        raw, log_variance = self.timbre(summary[:, : self.width]).chunk(2, dim=1)
        read = summary if self.comb is None else summary[:, self.width :]
        return self.whitening(raw), log_variance, self.pitch(read)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[b, frames, 128] → μ [b, d], log σ² [b, d], pitch logits [b, 25]."""
        return self.place(self.summary(embedding))


class MapDecoder(nn.Module):
    """Map point and one-hot pitch to an embedding: the encoder mirrored.

    It has no dropout, and its norms are per frame: until the decoder is of use the map learns nothing from it, and so
    it learned faster (80 steps from pitch alone: mean squared error 0.86, against 0.97 with one norm per note).
    """

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        flat = shape.channels[-1] * shape.coarse_frames
        self.trunk = _linear_stack((shape.map_dimensions + shape.pitches, *reversed(shape.hidden), flat), 0.0)
        # One-hot pitch and a point in the unit disc are small inputs; weights of their fan-in would make them smaller.
        nn.init.normal_(dict(self.trunk.named_parameters())["0.weight"], std=1.0)
        layers: list[nn.Module] = []
        widths = (*reversed(shape.channels), shape.dimensions)
        for i, (before, after) in enumerate(pairwise(widths)):
            layers.append(Doubling(before, after))
            if i < len(widths) - 2:
                layers += [ChannelNorm(after), nn.LeakyReLU(SLOPE)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor, pitch: Tensor) -> Tensor:
        """z [b, d], pitch [b] in 0..24 → [b, frames, 128]."""
        one_hot = functional.one_hot(pitch, self.shape.pitches).to(z.dtype)
        coarse = self.trunk(torch.cat([z, one_hot], dim=1))
        coarse = coarse.view(-1, self.shape.channels[-1], self.shape.coarse_frames).transpose(1, 2)
        frames: Tensor = self.convolutions(coarse)
        return frames[:, : self.shape.frames]


class Vae(nn.Module):
    """Encoder, decoder and the two classifiers on μ."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = MapEncoder(shape)
        self.decoder = MapDecoder(shape)
        self.family = _classifier(shape.map_dimensions, FAMILY_WIDTHS, shape.families)
        self.instrument = _classifier(shape.map_dimensions, INSTRUMENT_WIDTHS, shape.instruments)

    def forward(
        self,
        summary: Tensor,
        *,
        sample_scale: float,
        decoded: slice = slice(None),
        judged: slice = slice(None),
    ) -> VaeOutput:
        """From summaries [b, width] (``encoder.summary``); only the notes of ``decoded`` are reconstructed, only those
        of ``judged`` classified by family and instrument.

        ``sample_scale`` is β of z = μ + σ ε β; 0 decodes the mean.
        """
        mu, log_variance, pitch_logits = self.encoder.place(summary)
        noise = torch.randn_like(mu) if sample_scale else torch.zeros_like(mu)
        z = mu + sample_scale * noise * (0.5 * log_variance).exp()
        return VaeOutput(
            mu=mu,
            log_variance=log_variance,
            pitch_logits=pitch_logits,
            family_logits=self.family(mu[judged]),
            instrument_logits=self.instrument(mu[judged]),
            reconstruction=self.decoder(z[decoded], pitch_logits[decoded].argmax(1)),
        )


def load_vae(folder: Path) -> tuple[Vae, dict[str, Any]]:
    """The VAE of data/vae, in evaluation mode, and its JSON.

    Raises DataError when missing or altered.
    """
    return weights.load(folder, "vae", lambda shape: Vae(VaeShape(**shape)))
