"""Style: how a sound's features are distributed, not where they are.

The mean and the standard deviation of every channel of every block (Huang and Belongie's adaptive instance
normalisation statistics, used for timbre by Tian, Lattner and Saitis, ISMIR 2025) say what a sound is made of
and leave out its order. Blocks differ in scale and channels in worth, so each number is standardised with
statistics of the training notes and weighted; the weights are learned with the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-5  # keeps the slope of the square root finite where a channel is constant


def statistics(maps: Mapping[str, Tensor]) -> Tensor:
    """Mean and population standard deviation of each channel over frequency and time.

    ``maps``: feature maps ``[b, channels, bands, frames]`` by block. Returns ``[b, d]``: for each block in
    order its means, then its deviations; ``d`` is twice the number of all channels.
    """
    parts: list[Tensor] = []
    for values in maps.values():
        mean = values.mean(dim=(2, 3))
        variance = (values - mean[:, :, None, None]).square().mean(dim=(2, 3))
        parts += [mean, torch.sqrt(variance + _EPSILON)]
    return torch.cat(parts, dim=1)


class WeightedStyle(nn.Module):
    """Standardise, weight, and scale to length 1: raw statistics ``[b, d]`` to a vector whose cosine is the
    distance.

    In training the batch's own mean and deviation standardise; ``fit`` then fixes those of the whole training
    set.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.standard = nn.BatchNorm1d(size, affine=False)
        self.log_weight = nn.Parameter(torch.zeros(size))

    def forward(self, raw: Tensor) -> Tensor:
        return functional.normalize(self.standard(raw) * torch.exp(self.log_weight), dim=1)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and population variance from all of ``batches`` (raw statistics, each ``[n, d]``)."""
        raw = torch.cat(list(batches)).double()
        fitted = {"running_mean": raw.mean(dim=0), "running_var": raw.var(dim=0, unbiased=False)}
        self.standard.load_state_dict(fitted, strict=False)
