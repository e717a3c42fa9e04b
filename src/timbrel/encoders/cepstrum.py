"""Cepstral statistics inside the network: computed, not learned.

    log-mel picture ─► cepstral coefficients 1 to 40 ─► mean, deviation over time ─► standardised ─► cepstrum [b, 80]

A network's guess of them was twice as far off as noise 30 dB below the note makes them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.encoders import filterbank

_COEFFICIENTS = 40
SIZE = 2 * _COEFFICIENTS
_EPSILON = 1e-5


class Cepstrum(nn.Module):
    """Log-mel pictures ``[b, 80, frames]`` to standardised cepstral statistics ``[b, 80]`` of mean square length 1."""

    basis: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        band = np.arange(filterbank.BANDS) + 0.5
        order = np.arange(1, _COEFFICIENTS + 1)
        basis = np.cos(
            np.pi * order[:, None] * band[None, :] / filterbank.BANDS
        )  # DCT-II, rows of equal length
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)
        self.register_buffer("mean", torch.zeros(SIZE))
        self.register_buffer("scale", torch.full((SIZE,), SIZE**-0.5))

    def raw(self, picture: Tensor) -> Tensor:
        """Mean and deviation over time of each coefficient, ``[b, 80]``. Coefficient 0, the level, is left out."""
        coefficients = torch.matmul(self.basis, picture)
        mean = coefficients.mean(dim=2)
        deviation = torch.sqrt((coefficients - mean[..., None]).square().mean(dim=2) + _EPSILON)
        return torch.cat([mean, deviation], dim=1)

    def forward(self, picture: Tensor) -> Tensor:
        return (self.raw(picture) - self.mean) * self.scale

    @torch.no_grad()
    def fit(self, pictures: Iterable[Tensor]) -> None:
        """Take mean and deviation from all of ``pictures``."""
        raw = torch.cat([self.raw(picture) for picture in pictures]).double()
        self.mean.copy_(raw.mean(dim=0))
        deviation = raw.std(dim=0, unbiased=False).clamp_min(1e-3)
        self.scale.copy_((deviation * SIZE**0.5).reciprocal())
