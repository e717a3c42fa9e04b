"""A scaffold for the timbre network's training: from its maps to what a teacher says of the same sound.

    maps, picture ─► statistics [b, n] ─► standardised, bounded ─► hidden layer ─► targets [b, d]

It makes the maps worth reading, and is taken away when they are done.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import filterbank
from timbrel.encoders.style import statistics
from timbrel.encoders.timbre import Shape, over_time

# Standard deviations: a channel that is nearly constant must not outweigh all others where it is not.
_MOST = 4.0
_EPSILON = 1e-5


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


class Scaffold(nn.Module):
    """Maps and pictures of a network of ``shape`` to targets ``[b, targets]``."""

    def __init__(self, shape: Shape, *, hidden: int, targets: int) -> None:
        super().__init__()
        stem, low, middle, high = shape.channels
        bands = filterbank.BANDS // 16
        width = 2 * (stem + low + 2 * middle + 2 * high) + 2 * (middle * 2 * bands + high * bands)
        width += 3 * filterbank.BANDS + 1
        self.standard = nn.BatchNorm1d(width, affine=False)
        said = nn.Linear(hidden, targets)
        nn.init.zeros_(said.weight)  # at first it says: the average sound
        self.layers = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), said
        )

    def forward(self, maps: Mapping[str, Tensor], picture: Tensor) -> Tensor:
        read = [statistics(maps), over_time(maps["body5"]), over_time(maps["body3"]), of_picture(picture)]
        standard = functional.hardtanh(self.standard(torch.cat(read, dim=1)), -_MOST, _MOST)
        said: Tensor = self.layers(standard)
        return said
