"""Statistics made comparable: standardised, bounded by a hyperbolic tangent, and weighted by block.

So one channel that is nearly constant in most sounds cannot outweigh all others in the one where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class Bounded(nn.Module):
    """Features [b, n] standardised by those it was fitted to, bounded to (-1, 1), and weighted."""

    mean: Tensor
    scale: Tensor
    weight: Tensor

    def __init__(self, weight: np.ndarray, least: float = 1e-6) -> None:
        """``least``: a deviation below which a feature counts as constant, and is left nearly so."""
        super().__init__()
        self._least = least
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
        self.scale.copy_(raw.std(dim=0, unbiased=False).clamp_min(self._least).reciprocal())
        self.variance = float(self(raw.float()).var(dim=0, unbiased=False).sum())


def block_weights(channels: Sequence[int]) -> np.ndarray:
    """Weights of means and deviations with which each block counts alike, however many channels it has."""
    counts = 2 * np.array(channels)
    return np.repeat(counts**-0.5, counts)
