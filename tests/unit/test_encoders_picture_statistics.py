"""The picture's own statistics, on pictures whose spectrum, course and rates are known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from timbrel.encoders.picture_statistics import RATES, SIZES, STRETCHES, PictureStatistics, course

SECONDS = torch.arange(300) / 100.0


def parts(picture: Tensor, heard: int = 300) -> dict[str, Tensor]:
    found = PictureStatistics()(picture, torch.full((len(picture),), heard))
    assert found.shape == (len(picture), 1468)
    return dict(zip(SIZES, found.split(list(SIZES.values()), dim=1), strict=True))


def test_the_spectrum_is_the_cepstrum_of_the_mean_power() -> None:
    """Half of the time 1 above, half as much below: the mean power, not the mean of logarithms, counts."""
    ripple = torch.cos(math.pi * 3 * (torch.arange(128) + 0.5) / 128)
    picture = (0.2 * ripple)[None, None, :, None].repeat(1, 1, 1, 300)
    found = parts(picture)["spectrum"][0]
    expected = torch.zeros(12)
    expected[2] = 0.1  # of a cosine of amplitude .2 the mean product with itself
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)
    louder = parts(picture + 0.7)["spectrum"][0]
    torch.testing.assert_close(louder, expected, atol=1e-5, rtol=0.0)
    halves = picture.clone()
    halves[..., :64, 150:] -= 10.0  # e^50 times less power: half of the time there is nothing, 3 dB
    lower = torch.cat([torch.full((64,), -math.log(2.0) / 5.0), torch.zeros(64)])
    cosines = torch.cos(math.pi * torch.arange(1, 13)[:, None] * (torch.arange(128) + 0.5) / 128)
    torch.testing.assert_close(
        parts(halves)["spectrum"][0], expected + cosines @ lower / 128, atol=1e-5, rtol=0.0
    )


def test_the_course_is_the_mean_of_each_stretch() -> None:
    picture = torch.arange(300.0)[None, None, None].repeat(1, 1, 128, 1)
    picture[:, :, 64:] += 2.0
    found = course(picture, torch.tensor([300])).reshape(9, 128)
    expected = [(start + stop - 1) / 2 for start, stop in pairwise(STRETCHES)]
    torch.testing.assert_close(found[:, :64], torch.tensor(expected)[:, None].repeat(1, 64))
    torch.testing.assert_close(found[:, 64:], found[:, :64] + 2.0)


def test_a_stretch_in_which_nothing_sounds_has_the_one_before_it() -> None:
    picture = torch.arange(300.0)[None, None, None].repeat(2, 1, 128, 1)
    picture[1, ..., 25:] = -1e3
    found = course(picture, torch.tensor([25, 25])).reshape(2, 9, 128)[..., 0]
    # Five frames of the fourth stretch are left: 20 to 24.
    assert found[0].tolist() == found[1].tolist() == [2.0, 7.0, 14.5, 22.0, 22.0, 22.0, 22.0, 22.0, 22.0]


@pytest.mark.parametrize("hertz", [1.0, 3.0, 6.0, 11.0, 30.0])
def test_fluctuation_stands_at_its_rate(hertz: float) -> None:
    picture = torch.zeros(1, 1, 128, 300)
    picture[:, :, 64:72] = torch.cos(2 * math.pi * hertz * SECONDS)
    found = parts(picture)["modulation"].reshape(16, len(RATES) - 2)
    rate = np.searchsorted(RATES, 3 * hertz, side="right") - 1
    steps = torch.diff(found[8], prepend=torch.zeros(1), append=torch.ones(1))
    assert int(steps.argmax()) == rate
    assert float(steps[rate]) > 0.45  # the window spreads a rate over three multiples of 1/3 Hz
    # Bands next to those that move are averaged with them; all others stand still, and have no rate.
    assert float(found[[0, 3, 6, 10, 15]].abs().max()) < 1e-3


def test_the_faster_the_further() -> None:
    """Of two rates the cumulative shares are the further apart the more they differ."""
    rates = torch.tensor([1.5, 2.5, 4.0, 7.0, 12.0, 20.0, 33.0])
    picture = torch.cos(2 * math.pi * rates[:, None] * SECONDS)[:, None, None].repeat(1, 1, 128, 1)
    found = parts(picture)["modulation"]
    away = (found[1:] - found[0]).norm(dim=1)
    assert torch.all(torch.diff(away) > 0.1)


def test_deviation_is_over_the_frames_that_count() -> None:
    picture = torch.zeros(1, 1, 128, 300)
    picture[0, 0, 60:, 0:100:2] = 1.0
    picture[..., 100:] = 50.0
    found = parts(picture, heard=100)["deviation"][0]
    still = math.sqrt(1e-5)
    # Three bands are averaged: of band 59 one in three moves.
    for band, height in ((20, 0.0), (59, 1 / 3), (60, 2 / 3), (90, 1.0)):
        assert found[band].item() == pytest.approx(max(height / 2, still), abs=1e-4)


def test_what_is_not_heard_does_not_count() -> None:
    torch.manual_seed(0)
    picture = torch.randn(2, 1, 128, 300)
    picture[1, ..., :57] = picture[0, ..., :57]
    statistics, heard = PictureStatistics(), torch.tensor([57, 57])
    found = statistics(picture, heard)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    cut = statistics(picture[:1, ..., :57], heard[:1])
    torch.testing.assert_close(cut[0], found[0], atol=1e-5, rtol=1e-4)
