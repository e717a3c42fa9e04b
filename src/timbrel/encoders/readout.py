"""From the network's maps to numbers that grade: statistics, the style read from them, and cepstra.

    maps, picture ─► statistics [b, n] ─► standardised, bounded ─► linear ─► style [b, s]
    picture ─► cepstral coefficients 1 to 40 ─► mean, deviation over time ─► standardised ─► cepstrum [b, 80]

The style's map is linear so that it can be fitted in closed form, to all examples at once. The cepstrum is computed,
not learned: a network's guess of it was twice as far off as noise 30 dB below the note makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import filterbank
from timbrel.encoders.style import statistics

COEFFICIENTS = 40
# Standard deviations: a channel that is nearly constant must not outweigh all others where it is not.
_MOST = 4.0
# Of the mean square of the features, which are about 1. A tenth was best of 0.01 to 1 on examples left out.
_RIDGE = 0.1
_EPSILON = 1e-5


def over_time(maps: Tensor) -> Tensor:
    """Mean and deviation over time: ``[b, channels, bands, frames]`` -> ``[b, 2 channels bands]``."""
    mean = maps.mean(dim=3)
    deviation = torch.sqrt((maps - mean[..., None]).square().mean(dim=3) + _EPSILON)
    return torch.cat([mean, deviation], dim=1).flatten(1)


def of_picture(picture: Tensor) -> Tensor:
    """Of the frames that sound, per band: mean, deviation, mean change to the next; and how many sound, ``[b, 241]``.

    A frame fades out of account within the lowest tenth of the picture's range: what is silent has no colour.
    """
    loud = picture.amax(dim=1, keepdim=True)
    low, high = picture.amin(dim=(1, 2), keepdim=True), loud.amax(dim=2, keepdim=True)
    sounds = (10.0 * (loud - low) / (high - low + 1e-3)).clamp(0.0, 1.0)
    share = sounds / (sounds.sum(dim=2, keepdim=True) + 1e-3)
    mean = (picture * share).sum(dim=2)
    deviation = torch.sqrt(((picture - mean[..., None]).square() * share).sum(dim=2) + _EPSILON)
    change = ((picture[..., 1:] - picture[..., :-1]).abs() * share[..., 1:]).sum(dim=2)
    return torch.cat([mean, deviation, change, sounds.mean(dim=2)], dim=1)


def everything(maps: Mapping[str, Tensor], last: Tensor, picture: Tensor) -> Tensor:
    """What the style is read from, ``[b, n]``: ``last`` is the last block ``over_time``, which the head needs, too."""
    return torch.cat([statistics(maps), last, over_time(maps["body3"]), of_picture(picture)], dim=1)


class Readout(nn.Module):
    """Statistics ``[b, n]`` to a style ``[b, s]``."""

    def __init__(self, statistics: int, style: int) -> None:
        super().__init__()
        self.standard = nn.BatchNorm1d(statistics, affine=False)
        self.said = nn.Linear(statistics, style)

    def features(self, statistics: Tensor) -> Tensor:
        """Standardised and bounded."""
        return functional.hardtanh(self.standard(statistics), -_MOST, _MOST)

    def forward(self, statistics: Tensor) -> Tensor:
        style: Tensor = self.said(self.features(statistics))
        return style

    @torch.no_grad()
    def fit(self, examples: Iterable[tuple[Tensor, Tensor, float]]) -> None:
        """Least squares with a ridge: of each (features ``[m, n]``, targets ``[m, s]``, weight).

        Sums of products are all that is kept of the examples, in double precision.
        """
        size = self.said.in_features + 1
        products = np.zeros((size, size))
        answers = np.zeros((size, self.said.out_features))
        for features, targets, weight in examples:
            known = np.concatenate([features.cpu().numpy(), np.ones((len(features), 1), np.float32)], axis=1)
            products += weight * (known.T @ known)
            answers += weight * (known.T @ targets.cpu().numpy())
        ridge = np.full(size, _RIDGE * products.trace() / size)
        ridge[-1] = 0.0  # the average sound costs nothing
        solved = torch.from_numpy(np.linalg.solve(products + np.diag(ridge), answers)).float()
        self.said.weight.copy_(solved[:-1].T)
        self.said.bias.copy_(solved[-1])


class Cepstrum(nn.Module):
    """Log-mel pictures ``[b, 80, frames]`` to standardised cepstral statistics ``[b, 80]`` of mean square length 1."""

    basis: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        band = np.arange(filterbank.BANDS) + 0.5
        order = np.arange(1, COEFFICIENTS + 1)
        basis = np.cos(
            np.pi * order[:, None] * band[None, :] / filterbank.BANDS
        )  # DCT-II, rows of equal length
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)
        self.register_buffer("mean", torch.zeros(2 * COEFFICIENTS))
        self.register_buffer("scale", torch.full((2 * COEFFICIENTS,), (2 * COEFFICIENTS) ** -0.5))

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
        self.scale.copy_((deviation * (2 * COEFFICIENTS) ** 0.5).reciprocal())
