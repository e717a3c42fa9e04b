"""Other conditions for the same note, simulated on its mel powers.

A training step sees each note through a chain of what recordings do to it: cut short, begun a little early or
late, a room, an equaliser, a narrow band, noise, another level. On powers ``[n, bands, frames]`` each costs
an elementwise operation, where waveforms would cost a spectrum per example. ``disturb`` has the same
conditions on waveforms, for measuring.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from timbrel.encoders import filterbank

_DECIBEL = math.log(10.0) / 10.0
_LEVEL_FRAMES = filterbank.FRAMES * 2_400 // 72_000  # 100 ms, as in the front end's level


def augment(power: Tensor, random: torch.Generator) -> Tensor:
    """Mel powers ``[n, 80, 120]``, each under its own random conditions; levelled as the front end levels clips."""
    power = _shift(power, random)
    power = _cut_short(power, random)
    power = _room(power, random)
    power = power * _tilt(power, random) * _equaliser(power, random) * _low_pass(power, random)
    power = level(power)
    power = _noise(power, random)
    return level(power)


def augment_lightly(power: Tensor, random: torch.Generator) -> Tensor:
    """Only what leaves the tone colour as it is: begun a little early or late, in noise 25 to 60 dB below."""
    return level(_noise(level(_shift(power, random)), random, nearest_db=25.0, farthest_db=60.0))


def level(power: Tensor) -> Tensor:
    """Scale each example so that its loudest 100 ms has power 1."""
    total = power.sum(dim=1, keepdim=True)
    loudest = functional.avg_pool1d(total, _LEVEL_FRAMES, stride=1).amax(dim=2, keepdim=True)
    return power / loudest.clamp_min(1e-12)


def _uniform(power: Tensor, random: torch.Generator, low: float, high: float) -> Tensor:
    """One number per example, ``[n, 1, 1]``."""
    drawn = torch.rand((len(power), 1, 1), generator=random).to(power.device)
    return low + (high - low) * drawn


def _happens(power: Tensor, random: torch.Generator, share: float) -> Tensor:
    return _uniform(power, random, 0.0, 1.0) < share


def _shift(power: Tensor, random: torch.Generator) -> Tensor:
    """Begin up to 30 ms early or late: the onset is found to within a frame or so. Powers are interpolated."""
    late = _uniform(power, random, -1.2, 1.2)
    before = functional.pad(power[..., :-1], (1, 0))
    after = torch.cat([power[..., 1:], power[..., -1:]], dim=2)
    neighbour = torch.where(late > 0.0, before, after)
    share = late.abs().clamp_max(1.0)
    return power * (1.0 - share) + neighbour * share


def _cut_short(power: Tensor, random: torch.Generator) -> Tensor:
    """A quarter of the notes end early, after 0.3 to 3 s, dying away within 50-200 ms."""
    frames = torch.arange(power.shape[2], device=power.device)
    end = _uniform(power, random, 0.1, 1.0) * power.shape[2]
    fall = _uniform(power, random, 7.0, 30.0)  # dB per frame of 25 ms
    gain = torch.exp(-_DECIBEL * fall * (frames - end).clamp_min(0.0))
    return torch.where(_happens(power, random, 0.25), power * gain, power)


def _room(power: Tensor, random: torch.Generator) -> Tensor:
    """A third of the notes sound in a room: a diffuse tail of 0.15 to 1 s, 4 to 20 dB below the direct sound."""
    taps = 24
    decay = _uniform(power, random, 0.15, 1.0)  # seconds to -60 dB
    steps = torch.arange(1, taps + 1, device=power.device) * (filterbank.HOP / 24_000)
    tail = torch.exp(-_DECIBEL * 60.0 * steps / decay)
    tail = tail / tail.sum(dim=2, keepdim=True)
    wet = torch.exp(-_DECIBEL * _uniform(power, random, 4.0, 20.0))
    chosen = torch.nonzero(_happens(power, random, 0.33).flatten()).flatten()
    if chosen.numel() == 0:
        return power
    # Toeplitz [taps delays] as one matrix per example: a grouped convolution is slower on a CPU.
    frames = power.shape[2]
    lag = (
        torch.arange(frames, device=power.device)[None, :]
        - torch.arange(frames, device=power.device)[:, None]
    )
    smear = torch.where(
        (lag >= 1) & (lag <= taps), (wet * tail)[chosen, 0][:, (lag - 1).clamp(0, taps - 1)], torch.zeros(())
    )
    result = power.clone()
    result[chosen] += torch.bmm(power[chosen], smear)
    return result


def _tilt(power: Tensor, random: torch.Generator) -> Tensor:
    """Gains per band: a third of the notes fall or rise by up to 4 dB per octave about 1 kHz."""
    octaves = torch.log2(torch.from_numpy(filterbank.centres()).to(power) / 1_000.0).reshape(1, -1, 1)
    slope = _uniform(power, random, -4.0, 4.0) * _happens(power, random, 0.33)
    return torch.exp(_DECIBEL * slope * octaves)


def _equaliser(power: Tensor, random: torch.Generator) -> Tensor:
    """Gains per band: a tilt (deviation 4 dB from end to end) and a smooth curve (deviation 2.5 dB, 7 knots)."""
    bands = torch.linspace(-0.5, 0.5, power.shape[1], device=power.device).reshape(1, -1, 1)
    tilt = 4.0 * torch.randn((len(power), 1, 1), generator=random).to(power.device)
    knots = 2.5 * torch.randn((len(power), 1, 7), generator=random).to(power.device)
    curve = functional.interpolate(knots, size=power.shape[1], mode="linear", align_corners=True)
    return torch.exp(_DECIBEL * (tilt * bands + curve.transpose(1, 2)))


def _low_pass(power: Tensor, random: torch.Generator) -> Tensor:
    """A fifth of the notes end at 4 to 9 kHz (NSynth is sampled at 16 kHz, so it ends at 8)."""
    hertz = torch.from_numpy(filterbank.centres()).to(power).reshape(1, -1, 1)
    cutoff = torch.exp(_uniform(power, random, math.log(4_000.0), math.log(9_000.0)))
    octaves = torch.log2(hertz / cutoff).clamp_min(0.0)
    gain = torch.exp(-_DECIBEL * (150.0 * octaves).clamp_max(70.0))
    return torch.where(_happens(power, random, 0.2), gain, torch.ones_like(gain))


def _noise(
    power: Tensor, random: torch.Generator, *, nearest_db: float = 10.0, farthest_db: float = 45.0
) -> Tensor:
    """Three quarters of the notes stand in noise, 10 to 45 dB below, white to pink.

    A band's power is that of a sum of amplitudes, |s + n|^2 with n complex Gaussian: noise adds its own power
    and a term of random sign. A band of ``k`` DFT bins averages over about ``k`` independent draws.
    """
    hertz = torch.from_numpy(filterbank.centres()).to(power).reshape(1, -1, 1)
    widths = torch.from_numpy(filterbank.filters().sum(axis=0)).to(power).reshape(1, -1, 1)
    spectrum = widths * (hertz / 1_000.0) ** -_uniform(power, random, 0.0, 1.0)
    spectrum = spectrum / spectrum.sum(dim=1, keepdim=True)
    noise = spectrum * torch.exp(-_DECIBEL * _uniform(power, random, nearest_db, farthest_db))
    noise = noise * _happens(power, random, 0.75)
    draws = torch.randn((2, *power.shape), generator=random).to(power.device)
    spread = widths.clamp_min(1.0).rsqrt()
    own = noise * (1.0 + draws[0] * spread).clamp_min(0.05)
    crossed = torch.sqrt(2.0 * power * noise) * spread * draws[1]
    # What is left of a band after cancelling is never less than a little of the noise.
    return torch.maximum(power + own + crossed, 0.05 * own)


def step_random(rng: np.random.Generator) -> torch.Generator:
    """A torch generator seeded from a step's numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))
