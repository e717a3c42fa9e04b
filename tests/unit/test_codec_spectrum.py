"""The spectrogram of the codec: known sounds have known levels, and the way back is exact."""

from __future__ import annotations

import numpy as np
import pytest

from timbrel.codec import spectrum


def sine(hz: float, seconds: float = 1.0, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * spectrum.SAMPLE_RATE)) / spectrum.SAMPLE_RATE
    return (amplitude * np.sin(2.0 * np.pi * hz * time)).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (319, 0), (320, 1), (639, 1), (95_999, 299), (96_000, 300)]
)
def test_every_320_samples_give_one_frame(samples: int, frames: int) -> None:
    result = spectrum.log_magnitude(np.zeros(samples, dtype=np.float32))
    assert result.shape == (frames, 1025)
    assert result.dtype == np.float32
    assert np.all(result == np.float32(spectrum.FLOOR_DB))


@pytest.mark.parametrize("level", [0.0, -20.0, -60.0])
def test_a_sine_on_a_bin_reads_its_level_there(level: float) -> None:
    hz = 40 * spectrum.SAMPLE_RATE / spectrum.FFT_SIZE
    middle = spectrum.log_magnitude(sine(hz, amplitude=10 ** (level / 20)))[37]
    assert np.argmax(middle) == 40
    # The soft floor adds 10 ** -4.5 to the magnitude: 0.27 dB at -60 dB.
    expected = 20 * np.log10(10 ** (level / 20) + 10 ** (spectrum.FLOOR_DB / 20))
    assert middle[40] == pytest.approx(expected, abs=0.01)
    beside = 20 * np.log10(0.5 * 10 ** (level / 20) + 10 ** (spectrum.FLOOR_DB / 20))
    assert middle[39] == pytest.approx(beside, abs=0.01)  # beside a partial, the Hann window has half of it


def test_frames_are_centred_on_their_own_samples() -> None:
    click = np.zeros(3200, dtype=np.float32)
    click[5 * 320 + 160] = 1.0
    energy = (10 ** (spectrum.log_magnitude(click) / 10)).sum(axis=1)
    assert np.argmax(energy) == 5
    assert energy[4] == pytest.approx(energy[6], rel=1e-3)


def test_a_batch_equals_its_members() -> None:
    noise = np.random.default_rng(1).standard_normal((3, 2000)).astype(np.float32)
    together = spectrum.log_magnitude(noise)
    for one, alone in zip(together, noise, strict=True):
        np.testing.assert_allclose(one, spectrum.log_magnitude(alone), atol=1e-4)


def test_the_inverse_gives_the_samples_back() -> None:
    noise = np.random.default_rng(2).standard_normal(9_600).astype(np.float32)
    np.testing.assert_allclose(spectrum.istft(spectrum.stft(noise)), noise, atol=1e-5)


def test_decibels_and_back() -> None:
    magnitude = np.array([0.0, 1e-5, 1e-3, 0.5, 1.0], dtype=np.float32)
    np.testing.assert_allclose(spectrum.to_magnitude(spectrum.to_decibels(magnitude)), magnitude, atol=2e-7)
    assert spectrum.to_magnitude(np.array([-90.0, -200.0, -np.inf]))[:].tolist() == [0.0, 0.0, 0.0]
    assert spectrum.to_magnitude(np.array([500.0]))[0] == pytest.approx(10 ** (6 / 20), rel=1e-3)


def test_log_spectral_distance_by_hand() -> None:
    reference = np.zeros((2, 4))
    other = np.array([[3.0, 3.0, 3.0, 3.0], [2.0, 0.0, 0.0, 0.0]])
    assert spectrum.log_spectral_distance(reference, other) == pytest.approx((3.0 + 1.0) / 2)
