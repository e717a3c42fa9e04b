"""Style: how a sound's features are distributed, not where they are.

The mean and the standard deviation of every channel of every block (Huang and Belongie's adaptive instance
normalisation statistics, used for timbre by Tian, Lattner and Saitis, ISMIR 2025) say what a sound is made of
and leave out its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_EPSILON = 1e-5  # keeps the slope of the square root finite where a channel is constant


@dataclass(frozen=True, slots=True)
class Within:
    """The frames of maps that count: ``mask`` [b, 1, 1, frames] of ones and zeros, ``share`` [b, 1] of all frames."""

    mask: Tensor
    share: Tensor

    def only(self, maps: Tensor) -> Tensor:
        """``maps`` with zeros for all other frames."""
        return maps * self.mask

    def mean(self, maps: Tensor, over: tuple[int, ...] = (3, 2)) -> Tensor:
        """Mean over frames, then over bands: [b, channels]. In turn, for runtimes that add up number after number.

        ``over`` (3,): over frames alone, [b, channels, bands].
        """
        mean = self.only(maps)
        for dim in over:
            mean = mean.mean(dim=dim)
        return mean / (self.share if len(over) == 2 else self.share[:, None])


def within(maps: Tensor, frames: Tensor) -> Within:
    """The first ``frames`` [b] frames of ``maps`` [b, channels, bands, frames]."""
    total = maps.shape[3]
    mask = torch.arange(total, device=maps.device)[None, :] < frames[:, None]
    return Within(mask[:, None, None, :].to(maps.dtype), frames[:, None].to(maps.dtype) / total)


def statistics(maps: Mapping[str, Tensor], frames: Mapping[str, Tensor] | None = None) -> Tensor:
    """Mean and population standard deviation of each channel over frequency and time.

    ``maps``: feature maps ``[b, channels, bands, frames]`` by block; ``frames``: how many of each block's frames count,
    ``[b]``, all without it. Returns ``[b, d]``: for each block in order its means, then its deviations; ``d`` is twice
    the number of all channels.
    """
    parts: list[Tensor] = []
    for name, values in maps.items():
        if frames is None:
            mean = values.mean(dim=(2, 3))
            variance = (values - mean[:, :, None, None]).square().mean(dim=(2, 3))
        else:
            counted = within(values, frames[name])
            mean = counted.mean(values)
            variance = counted.mean((values - mean[:, :, None, None]).square())
        parts += [mean, torch.sqrt(variance + _EPSILON)]
    return torch.cat(parts, dim=1)
