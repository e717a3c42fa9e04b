"""The style network: what a sound is like, from how the maps of a network of EfficientAT's shape are distributed.

    clip [b, 72000] ─► picture [b, 1, 128, 300] ─┬► 17 blocks ─► mean, deviation of every channel ─┬► [b, 3260]
           └─► frames up to the last sound [b] ──┴──► spectrum, course, modulation, deviation ─────┘     │
                                        style [b, s] ◄─ principal axes ◄─ standardised, bounded, weighted

What follows a short note's end does not count: a pause is no part of its timbre. Statistics are bounded before they are
reduced to principal components (``bounded``).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.encoders.bounded import Bounded, block_weights
from timbrel.encoders.efficientat import Features
from timbrel.encoders.picture_statistics import SIZES, PictureStatistics
from timbrel.encoders.style import statistics

WIDTH = 0.4
PICTURE_WEIGHTS = {"spectrum": 12.0, "attack": 13.0, "course": 18.0, "modulation": 8.0, "deviation": 5.0}
"""What the picture's own statistics are worth, a block being worth 1; chosen on 828 sweeps (seeds 20, 31 to 34 and 77
of ``timbrel evaluate sweeps``), none of which is in the report."""
_ROTATIONS = 40


class StyleNetwork(nn.Module):
    """Pictures [b, 1, 128, frames], of which the first ``heard`` [b] frames count, to styles [b, s].

    Styles have a mean square length of 1 over the sounds that ``calibrate`` was given.
    """

    centre: Tensor
    axes: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.features = Features(WIDTH)
        self.of_picture = PictureStatistics()
        of_picture = np.concatenate(
            [np.full(size, (PICTURE_WEIGHTS[name] / size) ** 0.5) for name, size in SIZES.items()]
        )
        self.bounded = Bounded(np.concatenate([block_weights(self.features.channels), of_picture]))
        width = len(self.bounded.weight)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width, size))

    @property
    def size(self) -> int:
        """s, how many numbers a style has."""
        return self.axes.shape[1]

    def raw(self, picture: Tensor, heard: Tensor) -> Tensor:
        """Statistics of all blocks and of the picture, [b, 3260]."""
        return torch.cat(
            [statistics(*self.features.blocks(picture, heard)), self.of_picture(picture, heard)], dim=1
        )

    def forward(self, picture: Tensor, heard: Tensor) -> Tensor:
        return torch.matmul(self.bounded(self.raw(picture, heard)) - self.centre, self.axes)

    @torch.no_grad()
    def calibrate(self, raw: Tensor) -> float:
        """Take scales and principal axes from ``raw`` [n, 3260] of many sounds; returns the variance kept.

        The axes are turned so that each number speaks of few statistics (``varimax``). To a cosine that is all the
        same; an L1 distance of styles then is nearly that of the statistics, in which no single large difference
        outweighs many small ones (sweeps of a parameter: Spearman .978, against .976 with axes turned at random).
        """
        self.bounded.fit(raw)
        bounded = self.bounded(raw).double()
        self.centre.copy_(bounded.mean(dim=0))
        centred = bounded - bounded.mean(dim=0)
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        chosen = variance.argsort(descending=True)[: self.size]
        turned = varimax(axes[:, chosen])
        # In numbers that half precision holds: the exported file is so much smaller.
        self.axes.copy_((turned / variance[chosen].sum().sqrt()).half())
        return float(variance[chosen].sum() / variance.sum())


def varimax(axes: Tensor) -> Tensor:
    """``axes`` [n, k], orthonormal, turned among themselves until each has few large entries (Kaiser 1958).

    Found by repeated polar decomposition of the criterion's gradient; the sign of no axis means anything.
    """
    rotation = torch.eye(axes.shape[1], dtype=axes.dtype)
    for _ in range(_ROTATIONS):
        turned = axes @ rotation
        gradient = axes.T @ (turned**3 - turned * turned.square().mean(dim=0))
        left, _, right = torch.linalg.svd(gradient)
        rotation = left @ right
    return axes @ rotation
