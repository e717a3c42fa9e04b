"""The mel front end: physical meaning of its numbers, and the same numbers from FFT and from matrix products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timbrel.encoders import baselines, filterbank
from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE, clip
from timbrel.encoders.mel import PowerMel, log_mel


def sine(hz: float) -> np.ndarray:
    return clip(np.sin(2 * np.pi * hz * np.arange(CLIP_SAMPLES) / SAMPLE_RATE).astype(np.float32))


def test_the_mel_scale_is_its_formula_and_invertible() -> None:
    assert filterbank.mel(700.0) == pytest.approx(2595.0 * np.log10(2.0))
    assert filterbank.hertz(filterbank.mel(1234.5)) == pytest.approx(1234.5)


def test_filters_share_every_bin_between_the_outer_centres() -> None:
    bins = np.arange(filterbank.FRAME // 2 + 1) * SAMPLE_RATE / filterbank.FRAME
    centres = filterbank.centres()
    inside = (bins >= centres[0]) & (bins <= centres[-1])
    np.testing.assert_allclose(filterbank.filters().sum(axis=1)[inside], 1.0, atol=1e-9)


@pytest.mark.parametrize("hz", [200.0, 1_000.0, 5_000.0])
def test_a_steady_sine_has_power_one_in_its_band(hz: float) -> None:
    power = filterbank.power_mel(sine(hz)[None])[0]
    assert power.shape == (filterbank.FRAMES, filterbank.BANDS)
    np.testing.assert_allclose(power[10:100].sum(axis=1), 1.0, rtol=0.02)
    loudest = filterbank.centres()[power[50].argmax()]
    assert abs(filterbank.mel(loudest) - filterbank.mel(hz)) < 25.0  # half a band


def test_matrix_products_give_the_numbers_of_the_fft() -> None:
    clips = 0.1 * np.random.default_rng(1).standard_normal((3, CLIP_SAMPLES)).astype(np.float32)
    expected = filterbank.power_mel(clips).transpose(0, 2, 1)
    found = PowerMel()(torch.from_numpy(clips)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_log_mel_spans_sixty_decibels() -> None:
    power = torch.tensor([0.0, 1e-6, 1.0])
    np.testing.assert_allclose(log_mel(power).numpy(), [-1.0, -1.0 + np.log10(2) / 3, 1.0], atol=1e-5)


def test_the_mel_baseline_is_the_average_in_decibels() -> None:
    vector = baselines.mel(sine(1_000.0)[None])[0]
    frames = filterbank.power_mel(sine(1_000.0)[None])[0]
    expected = (10 * np.log10(frames / filterbank.FLOOR + 1)).mean(axis=0)
    np.testing.assert_allclose(vector, expected - expected.mean(), atol=1e-4)
    assert np.ptp(vector) == pytest.approx(60.0, abs=3.0)


def test_mfcc_leaves_the_level_out_and_keeps_the_shape() -> None:
    clips = np.stack([sine(300.0), 0.5 * sine(300.0), sine(3_000.0)])
    vectors = baselines.mfcc(clips)
    assert vectors.shape == (3, 80)
    near = np.linalg.norm(vectors[0] - vectors[1])
    far = np.linalg.norm(vectors[0] - vectors[2])
    assert near < 0.35 * far
    assert set(baselines.BASELINES) == {"mfcc", "mel"}
