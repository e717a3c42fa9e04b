"""How much each bin of a spectrum counts: partials carry the pitch, and most bins are not partials."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from timbrel.codec.spectrum import FFT_SIZE, FLOOR_DB, SAMPLE_RATE

# A partial is loud or soft against its neighbours within this many bins (190 Hz) on either side.
NEIGHBOUR_BINS = 16
# So far above the floor a bin counts as sounding.
SOUNDING_DB = 6.0
# What every bin counts however high it lies; the rest goes by the ear's resolution.
FLAT_SHARE = 0.2
# The square root of the amplitude: a partial 40 dB down still counts a tenth.
_PER_DECIBEL = math.log(10.0) / 40.0


def by_ear(bins: int) -> Tensor:
    """What each of the first ``bins`` bins counts [bins], 1 in the mean: most where the ear tells partials apart.

    The inverse of the equivalent rectangular bandwidth, 24.7 (4.37 f / kHz + 1) Hz (Glasberg and Moore 1990), but for
    ``FLAT_SHARE``. Half of all bins lie above 6 kHz, in six of forty such bands: counted alike they take most of the
    128 numbers, and the weak low partials that tell an octave from the next are lost.
    """
    hertz = torch.arange(bins) * (SAMPLE_RATE / FFT_SIZE)
    density = 1.0 / (24.7 * (4.37e-3 * hertz + 1.0))
    return FLAT_SHARE + (1.0 - FLAT_SHARE) * density / density.mean()


def against_loudest(log_magnitude: Tensor) -> Tensor:
    """dB [..., 1025] -> shares [..., 1025] that sum to 1, by ear: the root of the amplitude against the loudest bin."""
    weight = torch.exp((log_magnitude - log_magnitude.amax(dim=-1, keepdim=True)) * _PER_DECIBEL)
    weight = weight * by_ear(weight.shape[-1]).to(weight.device)
    return weight / weight.sum(dim=-1, keepdim=True)


def prominence(log_magnitude: Tensor) -> Tensor:
    """dB [..., 1025] -> the same root against the loudest bin nearby, by ear, and 0 where nothing sounds.

    Which partials are there, however weak, is what tells an octave from the next.
    """
    bins = log_magnitude.shape[-1]
    rows = log_magnitude.reshape(-1, 1, bins)
    nearby = functional.max_pool1d(rows, 2 * NEIGHBOUR_BINS + 1, 1, NEIGHBOUR_BINS)
    near = torch.exp((log_magnitude - nearby.view_as(log_magnitude)) * _PER_DECIBEL)
    return near * by_ear(bins).to(near.device) * (log_magnitude > FLOOR_DB + SOUNDING_DB)


def against_neighbours(log_magnitude: Tensor) -> Tensor:
    """``prominence`` as shares [..., 1025] that sum to 1, to less where next to nothing sounds."""
    near = prominence(log_magnitude)
    return near / near.sum(dim=-1, keepdim=True).clamp_min(1.0)
