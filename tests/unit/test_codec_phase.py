"""Phase reconstruction: the sound has the spectrum it was built from, its pitch, and no clicks."""

from __future__ import annotations

import numpy as np
import pytest

from timbrel.codec import phase
from timbrel.codec.spectrum import BINS, FLOOR_DB, log_magnitude, log_spectral_distance, stft, to_magnitude


def tone(hz: float, *, partials: int = 12, seconds: float = 0.8) -> np.ndarray:
    """A decaying harmonic tone, peak 0.9."""
    time = np.arange(round(seconds * 24_000)) / 24_000
    sound = sum(np.sin(2 * np.pi * hz * n * time + n * n) / n for n in range(1, partials + 1))
    sound *= np.exp(-1.5 * time) * np.minimum(1.0, time / 0.02)
    return (0.9 * sound / np.abs(sound).max()).astype(np.float32)


def frequency(audio: np.ndarray) -> float:
    """The strongest frequency in Hz, by a parabola through the log spectrum of the whole."""
    size = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**18))
    peak = int(np.argmax(size))
    left, middle, right = np.log(size[peak - 1 : peak + 2])
    return (peak + 0.5 * (left - right) / (left - 2 * middle + right)) * 24_000 / 2**18


@pytest.mark.parametrize("hz", [130.81, 261.63, 277.0, 523.25])
def test_pitch_is_kept_within_ten_cents(hz: float) -> None:
    rebuilt = phase.reconstruct(log_magnitude(tone(hz)))
    assert abs(1200 * np.log2(frequency(rebuilt) / hz)) < 10


@pytest.mark.parametrize("hz", [130.81, 311.13])
def test_the_spectrum_is_kept(hz: float) -> None:
    wanted = log_magnitude(tone(hz))
    assert log_spectral_distance(wanted, log_magnitude(phase.reconstruct(wanted))) < 1.5


def test_iterations_come_closer_than_the_guess_alone() -> None:
    wanted = log_magnitude(tone(196.0))
    guess, polished = (
        log_spectral_distance(wanted, log_magnitude(phase.reconstruct(wanted, iterations=n))) for n in (0, 8)
    )
    assert polished < 0.8 * guess


def test_it_draws_no_random_numbers() -> None:
    wanted = log_magnitude(tone(220.0))
    np.testing.assert_array_equal(phase.reconstruct(wanted), phase.reconstruct(wanted))


def test_nothing_clicks_at_the_ends_and_nothing_clips() -> None:
    loud = np.full((60, BINS), -20.0, dtype=np.float32)  # far more than full scale once added up
    sound = phase.reconstruct(loud)
    assert len(sound) == 60 * 320
    assert np.abs(sound).max() == pytest.approx(1.0, abs=1e-6)
    assert sound[0] == 0.0
    assert abs(sound[-1]) < 1e-3
    first, middle = np.abs(sound[:6]).max(), np.abs(sound[4_000:12_000]).max()
    assert first < 0.05 * middle


def test_silence_stays_silent() -> None:
    assert np.array_equal(phase.reconstruct(np.full((10, BINS), FLOOR_DB)), np.zeros(3_200))
    assert phase.reconstruct(np.zeros((0, BINS))).shape == (0,)


def test_a_sound_comes_back_from_its_spectra_and_phases() -> None:
    sound = tone(196.0)
    rebuilt = phase.reconstruct(log_magnitude(sound), known=np.angle(stft(sound)))
    inside = slice(phase.FADE_IN, -phase.FADE_OUT)
    np.testing.assert_allclose(rebuilt[inside], sound[inside], rtol=0, atol=1e-4)


def test_known_phases_are_carried_on() -> None:
    """Half of the phases known: the first half is the sound itself, and no partial restarts at the join."""
    sound = tone(207.3, seconds=1.2)
    rebuilt = phase.reconstruct(log_magnitude(sound), known=np.angle(stft(sound))[:45])
    known, join = slice(phase.FADE_IN, 40 * 320), slice(44 * 320, 52 * 320)
    assert np.corrcoef(rebuilt[known], sound[known])[0, 1] > 0.9999
    assert np.corrcoef(rebuilt[join], sound[join])[0, 1] > 0.98
    guessed = phase.reconstruct(log_magnitude(sound))
    assert abs(np.corrcoef(guessed[join], sound[join])[0, 1]) < 0.9


def test_one_steady_partial_advances_by_its_frequency() -> None:
    """A peak between bins 50 and 51 turns by 2 pi * 50.3 * 320 / 2048 from frame to frame."""
    time = np.arange(24_000) / 24_000
    magnitude = to_magnitude(
        log_magnitude(np.sin(2 * np.pi * 50.3 * 24_000 / 2048 * time).astype(np.float32))
    )
    guess = phase.initial_phase(magnitude)
    step = np.angle(np.exp(1j * (guess[31, 50] - guess[30, 50])))
    assert step == pytest.approx(np.angle(np.exp(2j * np.pi * 50.3 * 320 / 2048)), abs=0.05)


def test_a_peak_over_full_scale_turns_down_its_neighbourhood_only() -> None:
    audio = 0.5 * np.ones(4_800, dtype=np.float32)
    audio[1_000] = 4.0
    limited = phase.limit(audio)
    assert np.abs(limited).max() <= 1.0
    assert limited[1_000] == pytest.approx(1.0, abs=1e-6)
    assert limited[999] == pytest.approx(0.5 / 4.0, abs=0.002)
    np.testing.assert_array_equal(limited[1_241:], audio[1_241:])
    np.testing.assert_array_equal(limited[:760], audio[:760])


def test_what_is_within_full_scale_is_not_touched() -> None:
    audio = tone(220.0)
    assert phase.limit(audio) is audio
    assert len(phase.limit(np.zeros(0, dtype=np.float32))) == 0
