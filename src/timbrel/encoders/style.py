"""Style: how a sound's features are distributed, not where they are.

The mean and the standard deviation of every channel of every block (Huang and Belongie's adaptive instance
normalisation statistics, used for timbre by Tian, Lattner and Saitis, ISMIR 2025) say what a sound is made of
and leave out its order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

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
