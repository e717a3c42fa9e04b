"""The learned half of the codec: a per-frame autoencoder of log magnitudes, 1025 -> 128 -> 1025.

          ┌─ linear 1025→128 (starts as PCA) ─┐                     ┌─ linear 128→1025 (starts as PCA) ─┐
    dB ───┤                                   + ─► standardise ─────┤                                   + ─► dB
          └─ 1025 → hidden → 128 (starts at 0)┘   [frames, 128]     └─ 128 → hidden → hidden → 1025 ────┘

It is as good as a 128-component PCA before the first step, and the multilayer perceptrons learn what a linear map
cannot: that partials move with the pitch. The PCA basis is turned by a random rotation, so that every one of the 128
dimensions has about the same spread: standardising them then hardly changes distances, and a mean squared error on
embeddings (what the generator minimises) stays nearly proportional to one on spectra.

What the encoder gives is a first guess. ``corrections`` then look at what the decoder makes of it, and move it: each
takes the gradient of the decoder's error and learned by how much to follow it (learned gradient descent: Andrychowicz
et al. 2016; iterative inference: Marino, Yue and Mandt 2018). A larger encoder or a longer training did not find the
codes that are there to be found: of 14 notes whose F0 was lost, codes fitted by 40 steps of Adam kept 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.codec.emphasis import against_loudest, against_neighbours, by_ear
from timbrel.codec.spectrum import BINS, FLOOR_DB

DIMENSIONS = 128
# Decibels are divided by this inside the network, so that values are of the order of 1.
DECIBEL_SCALE = 20.0
# Brings the gradients that corrections see to the order of 1.
GRADIENT_SCALE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """Sizes that the weights depend on."""

    hidden: int = 512
    corrections: int = 0
    correction_hidden: int = 512


class Correction(nn.Module):
    """One move of a latent [..., 128] by the gradient of its error [..., 128]; at first it leaves it where it is."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.direct = nn.Linear(DIMENSIONS, DIMENSIONS, bias=False)
        last = nn.Linear(hidden, DIMENSIONS)
        self.learned = nn.Sequential(nn.Linear(2 * DIMENSIONS, hidden), nn.GELU(), last)
        nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, latent: Tensor, gradient: Tensor) -> Tensor:
        moved: Tensor = latent + self.direct(gradient) + self.learned(torch.cat([latent, gradient], dim=-1))
        return moved


class MagnitudeCodec(nn.Module):
    """Log magnitude in dB [..., 1025] <-> standardised embedding [..., 128], frame by frame."""

    mean: Tensor
    latent_mean: Tensor
    latent_scale: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.register_buffer("mean", torch.full((BINS,), FLOOR_DB))
        self.register_buffer("latent_mean", torch.zeros(DIMENSIONS))
        self.register_buffer("latent_scale", torch.ones(DIMENSIONS))
        self.analysis = nn.Linear(BINS, DIMENSIONS, bias=False)
        self.analysis_residual = nn.Sequential(
            nn.Linear(BINS, hidden), nn.GELU(), nn.Linear(hidden, DIMENSIONS)
        )
        self.synthesis = nn.Linear(DIMENSIONS, BINS, bias=False)
        self.synthesis_residual = nn.Sequential(
            nn.Linear(DIMENSIONS, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, BINS),
        )
        for residual in (self.analysis_residual, self.synthesis_residual):
            last = residual[-1]
            if isinstance(last, nn.Linear):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.corrections = nn.ModuleList(
            [Correction(config.correction_hidden) for _ in range(config.corrections)]
        )

    def with_corrections(self, count: int) -> MagnitudeCodec:
        """A copy with ``count`` corrections, new ones where it has fewer: it codes as this one does until trained."""
        copy = MagnitudeCodec(replace(self.config, corrections=count))
        mine = {name: tensor for name, tensor in self.state_dict().items() if name in copy.state_dict()}
        copy.load_state_dict(copy.state_dict() | mine)
        return copy

    @torch.no_grad()
    def start_from_pca(self, log_magnitude: np.ndarray, seed: int) -> None:
        """Set the linear path to a rotated PCA of frames [n, 1025] in dB (n >= 128), and the scale to match."""
        frames = np.asarray(log_magnitude, dtype=np.float64)
        mean = frames.mean(axis=0)
        centred = (frames - mean) / DECIBEL_SCALE
        _, vectors = np.linalg.eigh(centred.T @ centred)
        basis = vectors[:, ::-1][:, :DIMENSIONS]
        rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((DIMENSIONS, DIMENSIONS)))
        turned = torch.from_numpy((basis @ rotation).astype(np.float32))
        self.mean.copy_(torch.from_numpy(mean.astype(np.float32)))
        self.analysis.weight.copy_(turned.T)
        self.synthesis.weight.copy_(turned)

    @torch.no_grad()
    def standardise(self, log_magnitude: Tensor) -> None:
        """Measure the raw latents of frames [n, 1025], so that embeddings have mean 0 and variance 1 over them."""
        raw = self.latent(log_magnitude)
        self.latent_mean.copy_(raw.mean(dim=0))
        self.latent_scale.copy_(raw.std(dim=0).clamp_min(1e-6))

    def latent(self, log_magnitude: Tensor) -> Tensor:
        """Before standardising: dB [..., 1025] -> [..., 128]."""
        return self.latents(log_magnitude)[-1]

    def latents(self, log_magnitude: Tensor) -> list[Tensor]:
        """The first guess, and what each correction made of it: 1 + ``corrections`` times [..., 128]."""
        x = (log_magnitude - self.mean) / DECIBEL_SCALE
        found = [self.analysis(x) + self.analysis_residual(x)]
        if self.corrections:
            # As the loss counts errors, but for the slopes.
            weight = by_ear(BINS).to(x.device) / BINS + against_loudest(log_magnitude)
            weight = (weight + against_neighbours(log_magnitude)) * GRADIENT_SCALE
            for correction in self.corrections:
                found.append(correction(found[-1], self._gradient(x, found[-1], weight)))
        return found

    def _gradient(self, x: Tensor, latent: Tensor, weight: Tensor) -> Tensor:
        """Downhill from ``latent``, of half the weighted squared error: J' (weight * (x - decoded)), [..., 128].

        ``x`` [..., 1025]: the spectrum as the network sees it. J, the derivative of the decoder, is written out:
        serving has no automatic differentiation.
        """
        first, _, second, _, third = self.synthesis_residual
        before = first(latent)
        between = second(functional.gelu(before))
        error = weight * (x - self.synthesis(latent) - third(functional.gelu(between)))
        back = (error @ third.weight) * _gelu_slope(between)
        back = (back @ second.weight) * _gelu_slope(before)
        return error @ self.synthesis.weight + back @ first.weight

    def spectrum(self, latent: Tensor) -> Tensor:
        """The inverse of ``latent``: [..., 128] -> dB [..., 1025]."""
        y = self.synthesis(latent) + self.synthesis_residual(latent)
        return y * DECIBEL_SCALE + self.mean

    def encode(self, log_magnitude: Tensor) -> Tensor:
        """dB [..., 1025] -> embedding [..., 128], mean 0 and variance 1 per dimension over the training frames."""
        return (self.latent(log_magnitude) - self.latent_mean) / self.latent_scale

    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding [..., 128] -> dB [..., 1025], never below the floor."""
        return self.spectrum(embedding * self.latent_scale + self.latent_mean).clamp_min(FLOOR_DB)

    @torch.no_grad()
    def round_weights(self) -> None:
        """Round the weights to what half precision holds: they are stored in it (``storage``) and lose nothing there.

        The buffers keep single precision.
        """
        for parameter in self.parameters():
            parameter.copy_(parameter.half())


def _gelu_slope(x: Tensor) -> Tensor:
    """The derivative of GELU, Φ(x) + x φ(x)."""
    return 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))) + x * torch.exp(-0.5 * x * x) / math.sqrt(
        2.0 * math.pi
    )
