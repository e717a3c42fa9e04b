"""The fine spectrum: numpy's powers, in quarter tones, of what is heard."""

from __future__ import annotations

import numpy as np
import torch

from timbrel.encoders.fine_spectrum import BANDS, BINS, FLOOR_DB, HOP, WINDOW, FineSpectrum, centres
from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE

TIME = np.arange(CLIP_SAMPLES) / SAMPLE_RATE


def fine(clip: np.ndarray, heard: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """(means, deviations) of one clip's bands, in dB."""
    found = FineSpectrum()(torch.from_numpy(clip.astype(np.float32))[None], torch.tensor([heard]))
    mean, deviation = found[0].split(BANDS)
    return mean.numpy(), deviation.numpy()


def test_powers_are_those_of_a_fourier_transform() -> None:
    clips = 0.1 * np.random.default_rng(0).standard_normal((2, CLIP_SAMPLES))
    found = FineSpectrum().powers(torch.from_numpy(clips.astype(np.float32))).numpy()
    window = np.hanning(WINDOW) / (np.hanning(WINDOW).sum() / 2)
    padded = np.pad(clips, ((0, 0), (HOP // 2, HOP // 2)))
    frames = [padded[:, start : start + WINDOW] * window for start in range(0, CLIP_SAMPLES, HOP)]
    expected = np.square(np.abs(np.fft.rfft(np.stack(frames, axis=1))))[..., :BINS]
    np.testing.assert_allclose(found, expected, atol=2e-6 * expected.max())


def test_a_sine_stands_in_its_quarter_tone_at_its_level() -> None:
    band = 96
    hertz = round(centres()[band] / 12.5) * 12.5  # on a bin: all of it is seen
    mean, deviation = fine(0.1 * np.sin(2 * np.pi * hertz * TIME))
    # The first and the last of 75 frames are half empty.
    np.testing.assert_allclose(mean[band], -20.0, atol=2.0)
    assert mean.argmax() == band
    assert deviation[band] < 1.0
    # Three semitones away nothing is left but the floor's neighbourhood.
    assert mean[band + 6] < -80.0


def test_levels_end_softly_at_the_floor() -> None:
    mean, deviation = fine(np.zeros(CLIP_SAMPLES))
    np.testing.assert_allclose(mean, FLOOR_DB, atol=1e-3)
    np.testing.assert_allclose(deviation, 0.0, atol=1e-2)


def test_what_follows_the_last_sound_does_not_count() -> None:
    short = np.where(TIME < 1.0, 0.1 * np.sin(2 * np.pi * 500.0 * TIME), 0.0)
    counted, _ = fine(short, heard=96)
    whole, deviation = fine(0.1 * np.sin(2 * np.pi * 500.0 * TIME))
    band = int(whole.argmax())
    np.testing.assert_allclose(counted[band], whole[band], atol=0.5)
    everything, spread = fine(short)
    assert everything[band] < whole[band] - 40.0
    assert spread[band] > 30.0 > deviation[band]
