"""Pitch on tones whose frequency is known by construction."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from timbrel.errors import AudioError
from timbrel.pitch import yin
from timbrel.pitch.estimate import estimate, estimate_by_period, loudest_stretch
from timbrel.pitch.scale import cents_between, hz_to_midi, midi_to_hz

RATE = 24_000


def harmonics(hz: float, numbers: range, *, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Partials at ``numbers`` times ``hz`` below 10 kHz, falling by 6 dB per octave."""
    time = np.arange(round(seconds * rate)) / rate
    partials = [np.sin(2 * np.pi * hz * k * time) / k for k in numbers if hz * k < min(10_000, rate / 2)]
    return (0.5 * np.sum(partials, axis=0)).astype(np.float32)


def saw(hz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return harmonics(hz, range(1, 40), seconds=seconds, rate=rate)


def sine(hz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return harmonics(hz, range(1, 2), seconds=seconds, rate=rate)


@pytest.mark.parametrize("midi", range(36, 97, 3))
def test_harmonic_tones(midi: int) -> None:
    found = estimate(saw(midi_to_hz(midi)), RATE)
    assert found.midi == pytest.approx(midi, abs=0.25)
    assert found.voiced
    assert found.confidence > 0.8


@pytest.mark.parametrize("hz", [25.0, 30.0, 35.0, 45.0, 2_200.0, 2_500.0, 3_000.0, 4_186.0])
@pytest.mark.parametrize("shape", [saw, sine])
def test_beyond_the_range_of_swift_f0(hz: float, shape: object) -> None:
    """SwiftF0 answers 59.7 Hz for a 30 Hz saw and 1,239 Hz for a 2,500 Hz one, both with confidence."""
    found = estimate(shape(hz), RATE)  # type: ignore[operator]
    assert found.estimator == "yin"
    assert abs(cents_between(found.f0_hz, hz)) < 5.0


@pytest.mark.parametrize("hz", [50.0, 65.4, 110.0, 220.0, 440.0, 1_000.0, 2_000.0])
def test_pure_sines(hz: float) -> None:
    assert abs(cents_between(estimate(sine(hz), RATE).f0_hz, hz)) < 30.0


@pytest.mark.parametrize("hz", [55.0, 110.0, 220.0, 440.0, 880.0])
@pytest.mark.parametrize(
    "numbers", [range(2, 9), range(1, 20, 2)], ids=["missing fundamental", "odd harmonics"]
)
def test_spectra_that_hint_at_another_octave(hz: float, numbers: range) -> None:
    assert abs(cents_between(estimate(harmonics(hz, numbers), RATE).f0_hz, hz)) < 30.0


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000, 192_000])
def test_any_sample_rate(rate: int) -> None:
    assert abs(cents_between(estimate(saw(220.0, rate=rate), rate).f0_hz, 220.0)) < 10.0


@pytest.mark.parametrize("gain", [1e-3, 1e-2, 1.0, 1_000.0])
def test_the_level_does_not_matter(gain: float) -> None:
    at_unity = estimate(saw(196.0), RATE)
    found = estimate(saw(196.0) * np.float32(gain), RATE)
    assert found.f0_hz == pytest.approx(at_unity.f0_hz, rel=1e-4)
    assert found.confidence == pytest.approx(at_unity.confidence, abs=1e-3)


@pytest.mark.parametrize("seconds", [0.03, 0.05, 0.1, 0.2])
def test_short_tones(seconds: float) -> None:
    assert abs(cents_between(estimate(saw(220.0, seconds), RATE).f0_hz, 220.0)) < 20.0


def test_a_tone_between_silences() -> None:
    padded = np.pad(saw(330.0, 0.3), (3 * RATE, 5 * RATE))
    found = estimate(padded, RATE)
    assert abs(cents_between(found.f0_hz, 330.0)) < 10.0
    assert found.voiced_share > 0.7  # of what sounds, not of the file


def test_the_loudest_note_of_a_recording_decides() -> None:
    quiet, loud = saw(220.0, 3.0), saw(330.0, 3.0)
    found = estimate(np.concatenate([0.1 * quiet, loud, 0.1 * quiet]), RATE, seconds=1.5)
    assert abs(cents_between(found.f0_hz, 330.0)) < 10.0


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_unvoiced(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0.0, 0.1, RATE)
    for audio in (noise, np.cumsum(noise) / 50.0):
        found = estimate(audio, RATE)
        assert not found.voiced
        assert math.isnan(found.f0_hz)
        assert math.isnan(found.midi)
        assert found.voiced_share < 0.3


def test_an_equal_tempered_chord_is_not_taken_for_its_common_part() -> None:
    """C4-E4-G4 nearly repeats at C2, where nothing sounds."""
    chord = sum(saw(midi_to_hz(m)) for m in (60, 64, 67))
    found = estimate(np.asarray(chord), RATE)
    assert not found.voiced or found.midi > 58.0


@pytest.mark.parametrize(
    "audio",
    [np.zeros(RATE), np.full(RATE, 0.5), np.zeros(0), np.ones(1), 1e-5 * sine(440.0)],
    ids=["zeros", "direct current", "empty", "one sample", "-100 dBFS"],
)
def test_silence_has_no_pitch(audio: np.ndarray) -> None:
    found = estimate(audio, RATE)
    assert (found.voiced, found.confidence, found.voiced_share, found.estimator) == (False, 0.0, 0.0, "none")


def test_a_click_has_no_pitch() -> None:
    click = np.zeros(RATE)
    click[RATE // 2] = 1.0
    assert not estimate(click, RATE).voiced


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_numbers_are_refused(bad: float) -> None:
    audio = saw(220.0)
    audio[100] = bad
    with pytest.raises(AudioError, match="NaN or infinite"):
        estimate(audio, RATE)


def test_threads_share_one_session_and_agree() -> None:
    tones = [saw(midi_to_hz(m), 0.3) for m in range(48, 64)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda t: estimate(t, RATE), tones))
    assert together == [estimate(t, RATE) for t in tones]


def test_yin_against_a_direct_sum() -> None:
    """Equation 6 of the paper, by hand, against the FFT form."""
    frame = np.random.default_rng(0).normal(size=(1, 60))
    window, max_lag = 40, 20
    direct = [np.sum((frame[0, :window] - frame[0, t : t + window]) ** 2) for t in range(max_lag + 1)]
    np.testing.assert_allclose(yin._difference(frame, window, max_lag)[0], direct, atol=1e-9)


def test_yin_of_silence_is_aperiodic() -> None:
    found = yin.track(np.zeros(RATE), RATE)
    assert np.isnan(found.f0_hz).all()
    assert (found.aperiodicity == 1.0).all()


def test_yin_of_almost_nothing() -> None:
    assert len(yin.track(np.ones(5), RATE).f0_hz) == 0


def test_loudest_stretch() -> None:
    audio = np.zeros(10 * RATE, dtype=np.float32)
    audio[6 * RATE : 7 * RATE] = 1.0
    found = loudest_stretch(audio, RATE, 1.0)
    assert len(found) == RATE
    assert found.sum() == pytest.approx(RATE, rel=0.02)
    assert loudest_stretch(audio[:10], RATE, 1.0).tolist() == audio[:10].tolist()


def test_the_scale() -> None:
    assert hz_to_midi(440.0) == 69.0
    assert hz_to_midi(261.6255653) == pytest.approx(60.0, abs=1e-6)
    assert midi_to_hz(57) == 220.0
    assert cents_between(880.0, 440.0) == 1200.0
    assert math.isnan(hz_to_midi(math.nan))
    assert math.isnan(hz_to_midi(0.0))


def test_by_period_alone_what_sounds_is_found_and_what_does_not_is_not() -> None:
    time = np.arange(RATE) / RATE
    assert estimate_by_period(sine(330.0), RATE).f0_hz == pytest.approx(330.0, rel=0.001)
    # A bar's upper modes, when they have died away by 30 dB and more.
    modes = [(1.0, 1.0), (2.71, 0.03), (8.39, 0.02)]
    bar = sum(level * np.sin(2 * np.pi * 330.0 * ratio * time) for ratio, level in modes)
    assert estimate_by_period(np.float32(0.3) * bar.astype(np.float32), RATE).f0_hz == pytest.approx(
        330.0, rel=0.002
    )
    # A fifth repeats an octave below its lower note, where nothing sounds.
    fifth = (sine(330.0) + sine(495.0)) / 2
    assert yin.track(fifth, RATE).f0_hz[0] == pytest.approx(165.0, rel=0.001)
    assert not estimate_by_period(fifth, RATE).voiced
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    assert not estimate_by_period(noise, RATE).voiced
    assert not estimate_by_period(np.zeros(RATE, np.float32), RATE).voiced
