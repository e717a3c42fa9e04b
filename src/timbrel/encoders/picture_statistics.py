"""What a mel picture says of a sound by itself, exactly, beside what a network hears in it.

    spectrum     12 cepstral coefficients of the mean power: the envelope's shape, hardly the partials under it
    attack       the level of every band in the first 50 ms
    course       the same in eight more stretches of time, short ones first: what becomes of it
    modulation   of 16 groups of bands, how their fluctuations are spread over rates from 0.7 to 50 Hz
    deviation    of every band over time

The network's own statistics do not move evenly as two sounds are mixed: where they are equally loud they beat, and what
measures fluctuation is furthest from either. A mean power does move evenly, and a course tells an attack from a decay,
which no statistic over all time can.

What follows a note's end does not count. A stretch in which nothing sounds any more is given the one before it: so a
note that dies away ends softly, and one that was cut off ends as it sounded.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders.efficientat_mel import BANDS
from timbrel.encoders.style import within

FRAMES = 300
FRAME_SECONDS = 0.01
COEFFICIENTS = 12
STRETCHES = (0, 5, 10, 20, 40, 70, 110, 160, 220, FRAMES)
"""In frames of 10 ms."""
_GROUPS = 16
# Each of as many octaves, from the second multiple of 1/3 Hz: the first is the window's own.
RATES = tuple(np.unique(np.geomspace(2, FRAMES // 2, 13).round().astype(int)).tolist())
"""Where bands of modulation begin and end, in multiples of 1/3 Hz."""
SIZES: Final = {
    "spectrum": COEFFICIENTS,
    "attack": BANDS,
    "course": (len(STRETCHES) - 2) * BANDS,
    "modulation": _GROUPS * (len(RATES) - 2),
    "deviation": BANDS,
}
"""How many numbers each part has, in their order."""
_EPSILON = 1e-5
_STILL = 0.1  # a sum of amplitudes of fluctuation: a band that hardly moves has no rate


class PictureStatistics(nn.Module):
    """Pictures [b, 1, 128, frames], at most 300 of them, of which the first ``heard`` [b] count, to [b, 1468]."""

    cosines: Tensor
    waves: Tensor

    def __init__(self) -> None:
        super().__init__()
        order = np.arange(1, COEFFICIENTS + 1)
        cosines = np.cos(np.pi * order * (np.arange(BANDS)[:, None] + 0.5) / BANDS)
        turn = 2.0 * np.pi * np.arange(FRAMES)[:, None] * np.arange(RATES[0], RATES[-1]) / FRAMES
        window = np.sin(np.pi * np.arange(FRAMES)[:, None] / FRAMES) ** 2
        waves = window * np.concatenate([np.cos(turn), np.sin(turn)], axis=1)
        for name, values in (("cosines", cosines / BANDS), ("waves", waves)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, picture: Tensor, heard: Tensor) -> Tensor:
        # Bands are averaged with their neighbours, so that a note a quarter tone off is no other sound.
        smooth = functional.avg_pool2d(picture, (3, 1), 1, (1, 0), count_include_pad=False)
        counted = within(smooth, heard)
        moving = counted.only(smooth - counted.mean(smooth, over=(3,))[..., None])
        variance = counted.mean(moving.square(), over=(3,))[:, 0]
        return torch.cat(
            [
                self.spectrum(picture, heard),
                course(picture, heard),
                self.modulation(moving[:, 0]),
                torch.sqrt(variance + _EPSILON),
            ],
            dim=1,
        )

    def spectrum(self, picture: Tensor, heard: Tensor) -> Tensor:
        """The cosine transform of the logarithm of each band's mean power, without its mean: [b, 12].

        In the picture's units, five of which are a neper of power (``style_picture.to_picture``).
        """
        powers = torch.exp(5.0 * picture)
        mean = within(powers, heard).mean(powers, over=(3,))[:, 0]
        return torch.matmul(torch.log(mean) / 5.0, self.cosines)

    def modulation(self, moving: Tensor) -> Tensor:
        """Of bands around their means [b, 128, frames], the share of fluctuation up to each rate: [b, 16 x 11].

        Cumulative, so that a rate that moves on is the further off the more it moves (as the earth mover's distance of
        two spectra is the L1 distance of their sums).
        """
        real, imaginary = torch.matmul(moving, self.waves[: moving.shape[2]]).chunk(2, dim=2)
        power = real.square() + imaginary.square()
        by_group = power.reshape(power.shape[0], _GROUPS, BANDS // _GROUPS, power.shape[2]).sum(dim=2)
        widths = [stop - start for start, stop in pairwise(RATES)]
        bands = torch.stack([part.sum(dim=2) for part in by_group.split(widths, dim=2)], dim=2)
        amplitude = torch.sqrt(bands)
        total = amplitude.sum(dim=2, keepdim=True) + _STILL
        return (torch.cumsum(amplitude, dim=2)[..., :-1] / total).flatten(1)


def course(picture: Tensor, heard: Tensor) -> Tensor:
    """Means of bands over ``STRETCHES`` of time, of the frames that count: [b, 9 x 128]."""
    levels: list[Tensor] = []
    for start, stop in pairwise(STRETCHES):
        part = picture[:, 0, :, start:stop]
        if not part.shape[2]:  # a shorter picture
            levels.append(levels[-1])
            continue
        sounding = (heard - start).clamp(0, part.shape[2])[:, None]
        counts = torch.arange(part.shape[2], device=part.device)[None, :] < sounding
        mean = (part * counts[:, None]).sum(dim=2) / sounding.clamp_min(1)
        levels.append(torch.where(sounding > 0, mean, levels[-1]) if levels else mean)
    return torch.cat(levels, dim=1)
