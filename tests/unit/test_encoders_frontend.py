"""The clip starts at the onset, whatever came before it, and has one level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.encoders.disturb import add_noise, gain, lead_in
from timbrel.encoders.frontend import CLIP_SAMPLES, REFERENCE_RMS, SAMPLE_RATE, clip, loudest_rms, onset
from timbrel.errors import AudioError


def pluck(hz: float = 220.0, seconds: float = 2.0, attack: float = 0.004) -> np.ndarray:
    """Five harmonics that rise in ``attack`` seconds and decay."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 6))
    return (0.3 * tone * np.minimum(1.0, time / attack) * np.exp(-1.5 * time)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.15, 0.25, 0.5, 1.5])
@pytest.mark.parametrize("snr_db", [None, 40.0, 30.0, 20.0])
def test_the_onset_is_found_behind_silence_and_noise(seconds: float, snr_db: float | None) -> None:
    audio = lead_in(pluck(), seconds)
    if snr_db is not None:
        audio = add_noise(audio, snr_db, np.random.default_rng(3))
    assert abs(onset(audio) / SAMPLE_RATE - seconds) <= 0.012


def test_a_little_noise_may_be_an_attack_and_is_kept() -> None:
    assert onset(add_noise(lead_in(pluck(), 0.02), 20.0, np.random.default_rng(3))) == 0
    assert abs(onset(lead_in(pluck(), 0.02)) / SAMPLE_RATE - 0.02) <= 0.005


def test_a_note_without_lead_in_begins_at_zero() -> None:
    assert onset(pluck()) == 0


@settings(deadline=None, max_examples=50)
@given(
    attack=st.floats(0.001, 2.0), silence=st.integers(1, 36_000), start_db=st.floats(-60.0, -18.0),
    noise_db=st.sampled_from([None, 40.0, 25.0]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_silence_before_a_note_moves_its_onset_by_less_than_a_hop(
    attack: float, silence: int, start_db: float, noise_db: float | None, seed: int
) -> None:
    """However slowly it rises, and wherever in its attack the recording begins."""
    ramp = pluck(attack=attack, seconds=attack + 1.0)
    note = ramp[round(attack * SAMPLE_RATE * 10.0 ** (start_db / 20.0)) :]
    if noise_db is not None:
        note = add_noise(note, noise_db, np.random.default_rng(seed))
    late = onset(np.concatenate([np.zeros(silence, np.float32), note])) - silence
    # A frame that is just below a threshold at one phase of the hops is above it at another.
    assert abs(late - onset(note)) <= 2 * 120


def test_a_slow_attack_is_followed_down_to_its_beginning() -> None:
    audio = lead_in(pluck(attack=0.8), 0.5)
    # Power reaches -40 dB of its maximum within the first few hundredths of a second of the ramp.
    assert 0.5 <= onset(audio) / SAMPLE_RATE <= 0.53


def test_lead_in_and_gain_leave_the_clip_unchanged() -> None:
    # 1.5 s is a whole number of hops, so the same samples are chosen.
    plain = clip(lead_in(pluck(), 0.5))
    changed = clip(gain(lead_in(pluck(), 1.5), -17.0))
    np.testing.assert_allclose(changed, plain, atol=1e-6)


def test_the_clip_is_three_seconds_and_its_loudest_window_has_the_reference_level() -> None:
    result = clip(pluck(seconds=1.0))
    assert result.shape == (CLIP_SAMPLES,)
    assert result.dtype == np.float32
    assert np.all(result[SAMPLE_RATE:] == 0.0)
    assert loudest_rms(result) == pytest.approx(REFERENCE_RMS, rel=1e-5)


def test_the_loudest_window_of_a_constant_is_its_value() -> None:
    assert loudest_rms(np.full(SAMPLE_RATE, -0.25, np.float32)) == pytest.approx(0.25)


def test_silence_stays_silent() -> None:
    assert np.all(clip(np.zeros(1_000, np.float32)) == 0.0)
    assert onset(np.zeros(1_000, np.float32)) == 0


def test_one_sample_is_enough() -> None:
    assert clip(np.array([0.5], np.float32))[0] > 0.0


@pytest.mark.parametrize(
    "audio", [np.zeros(0), np.zeros((2, 100)), np.array([0.1, np.nan]), np.array([np.inf, 0.0])]
)
def test_what_is_not_audio_is_refused(audio: np.ndarray) -> None:
    with pytest.raises(AudioError):
        clip(audio)
