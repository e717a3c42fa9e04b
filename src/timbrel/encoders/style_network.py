"""The style network: what a sound is like, from how the maps of a network of EfficientAT's shape are distributed.

    clip [b, 72000] ─┬► picture [b, 1, 128, 300] ─┬► 17 blocks ─► mean, deviation of every channel ─┬► [b, 3616]
                     │                            └► spectrum, attack, course, modulation, deviation┤     │
                     ├► quarter tones in dB ─► mean, deviation ─────────────────────────────────────┘     │
                     └► frames up to the last sound [b], which count                                      │
                                          style [b, s] ◄─ principal axes ◄─ standardised, bounded, weighted

What follows a short note's end does not count: a pause is no part of its timbre. Statistics are bounded before they are
reduced to principal components (``bounded``).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.encoders import fine_spectrum
from timbrel.encoders.bounded import Bounded, block_weights
from timbrel.encoders.efficientat import Features
from timbrel.encoders.fine_spectrum import FineSpectrum
from timbrel.encoders.picture_statistics import SIZES, PictureStatistics
from timbrel.encoders.style import statistics
from timbrel.encoders.style_picture import StylePicture, heard_frames
from timbrel.encoders.within_class import whitening

WIDTH = 0.4
PICTURE_WEIGHTS = {"spectrum": 12.0, "attack": 13.0, "course": 18.0, "modulation": 8.0, "deviation": 5.0}
"""What the picture's own statistics are worth, a block being worth 1; chosen on 828 sweeps (seeds 20, 31 to 34 and 77
of ``timbrel evaluate sweeps``), none of which is in the report."""
FINE_WEIGHT = 9.0
"""What the fine spectrum is worth, likewise."""
LEAST_DEVIATION = 1e-3
_ROTATIONS = 40


class StyleNetwork(nn.Module):
    """Clips [b, 72000] as ``frontend.clip`` makes them to styles [b, s].

    Styles have a mean square length of 1 over the sounds that ``calibrate`` was given.
    """

    centre: Tensor
    axes: Tensor
    whitening: Tensor
    """[s, s], for who asks for the same instrument (``within_class``); no part of a style."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.features = Features(WIDTH)
        self.picture = StylePicture()
        self.of_picture = PictureStatistics()
        self.fine = FineSpectrum()
        worth = [(PICTURE_WEIGHTS[name], size) for name, size in SIZES.items()]
        worth.append((FINE_WEIGHT, fine_spectrum.SIZE))
        weights = [np.full(size, (weight / size) ** 0.5) for weight, size in worth]
        # Bands over 11 kHz lie at the picture's floor: what they do there is rounding.
        self.bounded = Bounded(
            np.concatenate([block_weights(self.features.channels), *weights]), least=LEAST_DEVIATION
        )
        width = len(self.bounded.weight)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width, size))
        self.register_buffer("whitening", torch.eye(size))

    @property
    def size(self) -> int:
        """s, how many numbers a style has."""
        return self.axes.shape[1]

    def raw(self, audio: Tensor) -> Tensor:
        """Statistics of all blocks, of the picture and of the fine spectrum, [b, 3616]."""
        picture, heard = self.picture(audio), heard_frames(audio)
        return torch.cat(
            [
                statistics(*self.features.blocks(picture, heard)),
                self.of_picture(picture, heard),
                self.fine(audio, heard),
            ],
            dim=1,
        )

    def forward(self, audio: Tensor) -> Tensor:
        return torch.matmul(self.bounded(self.raw(audio)) - self.centre, self.axes)

    @torch.no_grad()
    def calibrate(self, raw: Tensor) -> float:
        """Take scales and principal axes from ``raw`` [n, 3616] of many sounds; returns the variance kept.

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

    @torch.no_grad()
    def whiten(self, raw: Tensor, instruments: np.ndarray) -> None:
        """Take the whitening from ``raw`` [n, 3616] of sounds of ``instruments`` [n], labels of any kind; after
        ``calibrate``. Raises DataError where no instrument has three sounds.
        """
        styles = torch.matmul(self.bounded(raw) - self.centre, self.axes)
        self.whitening.copy_(torch.from_numpy(whitening(styles.numpy(), instruments)).half())


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
