"""The learned half of the codec: a per-frame autoencoder of log magnitudes, 1025 -> 128 -> 1025.

          ┌─ linear 1025→128 (starts as PCA) ─┐                     ┌─ linear 128→1025 (starts as PCA) ─┐
    dB ───┤                                   + ─► standardise ─────┤                                   + ─► dB
          └─ 1025 → hidden → 128 (starts at 0)┘   [frames, 128]     └─ 128 → hidden → hidden → 1025 ────┘

It is as good as a 128-component PCA before the first step, and the multilayer perceptrons learn what a linear map
cannot: that partials move with the pitch. The PCA basis is turned by a random rotation, so that every one of the 128
dimensions has about the same spread: standardising them then hardly changes distances, and a mean squared error on
embeddings (what the generator minimises) stays nearly proportional to one on spectra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.codec.spectrum import BINS, FLOOR_DB

DIMENSIONS = 128
# Decibels are divided by this inside the network, so that values are of the order of 1.
DECIBEL_SCALE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """Sizes that the weights depend on."""

    hidden: int = 512


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
        x = (log_magnitude - self.mean) / DECIBEL_SCALE
        return self.analysis(x) + self.analysis_residual(x)

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
