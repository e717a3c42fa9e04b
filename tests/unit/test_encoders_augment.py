"""Simulated conditions do to mel powers what the real ones do to waveforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timbrel.encoders import augment, disturb, filterbank
from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE, clip

TIME = np.arange(CLIP_SAMPLES) / SAMPLE_RATE


def tone() -> np.ndarray:
    harmonics = np.arange(1, 20)[:, None]
    return (np.sin(2 * np.pi * 330.0 * harmonics * TIME) / harmonics).sum(axis=0).astype(np.float32)


def power_of(audio: np.ndarray) -> torch.Tensor:
    """[1, 80, 120] of the front end's clip."""
    return torch.from_numpy(filterbank.power_mel(clip(audio)[None]).transpose(0, 2, 1).copy())


def test_level_brings_the_loudest_tenth_of_a_second_to_one() -> None:
    power = torch.zeros(1, 80, 120)
    power[0, 10, 20:24] = 7.0
    power[0, 30, 60] = 7.0
    levelled = augment.level(power)
    assert levelled[0, 10, 20].item() == pytest.approx(1.0)
    assert augment.level(100.0 * levelled)[0, 30, 60].item() == pytest.approx(1.0)


def test_levelled_powers_are_those_of_the_levelled_waveform() -> None:
    power = power_of(tone())
    torch.testing.assert_close(augment.level(power), power, rtol=0.02, atol=1e-6)


def test_augmentation_depends_on_its_generator_only() -> None:
    power = power_of(tone()).repeat(8, 1, 1)
    first = augment.augment(power, augment.step_random(np.random.default_rng(5)))
    again = augment.augment(power, augment.step_random(np.random.default_rng(5)))
    other = augment.augment(power, augment.step_random(np.random.default_rng(6)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # each example has conditions of its own
    assert bool(torch.isfinite(first).all())
    assert float(first.min()) >= 0.0


def test_tilted_examples_are_tilted_by_decibels_per_octave() -> None:
    gains = augment._tilt(torch.ones(64, 80, 120), torch.Generator().manual_seed(3))
    octaves = np.log2(filterbank.centres() / 1_000.0)
    decibels = 10.0 * np.log10(gains[:, :, 0].numpy())
    slopes = decibels[:, -1] / octaves[-1]
    np.testing.assert_allclose(decibels, slopes[:, None] * octaves, atol=1e-3)
    assert 12 <= np.count_nonzero(slopes) <= 32
    assert 3.0 < float(np.abs(slopes).max()) <= 4.0


def test_light_conditions_leave_the_tone_colour() -> None:
    power = power_of(tone()).repeat(64, 1, 1)
    lightly = augment.augment_lightly(power, torch.Generator().manual_seed(0))
    loud = power > 1e-2
    change = 10.0 * torch.log10(lightly[..., 4:110] / power[..., 4:110])[loud[..., 4:110]]
    assert float(change.abs().median()) < 0.2
    assert float(change.abs().mean()) < 0.5


def test_noise_adds_its_power_on_average() -> None:
    power = power_of(tone()).repeat(256, 1, 1)
    noisy = augment._noise(power, torch.Generator().manual_seed(0))
    added = (noisy - power).sum(dim=1).mean(dim=1)  # relative to a note of power about 1
    noise_db = 10 * torch.log10(added[added > 10**-4.6])
    # 10 to 45 dB below the note, three quarters of the examples.
    assert -11.5 < float(noise_db.max()) < -8.5
    assert 0.6 < len(noise_db) / 256 < 0.87


def test_a_room_delays_and_never_advances() -> None:
    power = torch.zeros(64, 80, 120)
    power[:, :, 40] = 1.0
    wet = augment._room(power, torch.Generator().manual_seed(1))
    assert torch.equal(wet[..., :40], power[..., :40])
    torch.testing.assert_close(wet[..., 40], power[..., 40])
    tails = wet[:, 0, 41:].sum(dim=1)
    affected = tails > 0
    assert 10 <= int(affected.sum()) <= 34
    assert float(tails[affected].min()) >= 10**-2.0
    assert float(tails[affected].max()) <= 10**-0.4
    assert bool((wet[affected, 0, 41] > wet[affected, 0, 50]).all())


def test_low_pass_leaves_the_low_bands_alone() -> None:
    gain = augment._low_pass(torch.ones(200, 80, 120), torch.Generator().manual_seed(2))
    low = torch.from_numpy(filterbank.centres() < 4_000.0)
    assert bool((gain[:, low] == 1.0).all())
    cut = gain[:, -1, 0] < 0.5
    assert 0.1 < float(cut.float().mean()) < 0.3


def test_waveform_conditions_have_their_stated_size() -> None:
    rng = np.random.default_rng(0)
    audio = tone()
    noise = disturb.add_noise(audio, 20.0, rng) - audio
    assert 10 * np.log10(np.mean(audio**2) / np.mean(noise**2)) == pytest.approx(20.0, abs=0.1)
    assert len(disturb.lead_in(audio, 0.5)) == CLIP_SAMPLES + 12_000
    np.testing.assert_allclose(disturb.gain(audio, 20.0), 10.0 * audio, rtol=1e-6)


@pytest.mark.parametrize(("hz", "expected_db"), [(500.0, -3.0), (1_000.0, 0.0), (4_000.0, 6.0)])
def test_tilt_in_decibels_per_octave(hz: float, expected_db: float) -> None:
    sine = np.sin(2 * np.pi * hz * TIME)
    tilted = disturb.tilt(sine, 3.0)
    middle = slice(12_000, 60_000)
    found = 20 * np.log10(np.std(tilted[middle]) / np.std(sine[middle]))
    assert found == pytest.approx(expected_db, abs=0.1)


def test_low_pass_and_room_on_waveforms() -> None:
    middle = slice(12_000, 60_000)
    high = np.sin(2 * np.pi * 8_000.0 * TIME)
    assert np.std(disturb.low_pass(high, 4_000.0)[middle]) < 1e-3
    low = np.sin(2 * np.pi * 500.0 * TIME)
    np.testing.assert_allclose(disturb.low_pass(low, 4_000.0)[middle], low[middle], atol=1e-3)
    click = np.zeros(24_000, np.float32)
    click[0] = 1.0
    wet = disturb.room(click, 0.4, -10.0, np.random.default_rng(1))
    assert wet[0] == pytest.approx(1.0, abs=1e-6)
    assert np.sum(wet[1:] ** 2) == pytest.approx(0.1, rel=1e-3)
