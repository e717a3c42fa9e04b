"""What the map encoder hears: noise taken away, short notes held on, every pitch brought into the map."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_models import tone

from timbrel.codec import spectrum
from timbrel.engine import placing
from timbrel.pitch.scale import cents_between, hz_to_midi, midi_to_hz

RATE = 24_000
BIN_HZ = RATE / spectrum.FFT_SIZE


def heard(samples: np.ndarray, midi: float | None = 60.0) -> placing.Heard:
    return placing.hear(samples.astype(np.float32), midi=midi, low=48, high=72)


def cents_off(log_magnitude: np.ndarray, key: float) -> float:
    """How far the strongest partial lies from the nearest one of ``key``; interpolated between the bins."""
    mean = log_magnitude[20:120].mean(axis=0)
    peak = int(mean[4:].argmax()) + 4
    left, middle, right = mean[peak - 1 : peak + 2]
    ratio = (peak + 0.5 * (left - right) / (left - 2 * middle + right)) * BIN_HZ / midi_to_hz(key)
    return abs(cents_between(ratio, max(1, round(ratio))))


def test_a_note_as_trained_on_is_taken_as_it_is() -> None:
    note = tone(60, 0.2, 0.3)
    (log_magnitude, phase), transposed = heard(note)
    assert transposed == 0.0
    assert phase is not None
    assert len(phase) == 150
    assert log_magnitude.shape == (150, 1025)
    assert log_magnitude.dtype == np.float32
    as_trained = spectrum.log_magnitude(note * (10 ** (-1 / 20) / 0.89))[:150]
    loud = as_trained > -60
    np.testing.assert_allclose(log_magnitude[loud], as_trained[loud], atol=0.05)
    assert np.abs(log_magnitude - as_trained).mean() < 0.2


@pytest.mark.parametrize(("midi", "key"), [(60.3, 60), (59.55, 60), (48.0 - 0.4, 48), (72.45, 72)])
def test_a_pitch_between_keys_is_tuned_to_the_nearest(midi: float, key: int) -> None:
    (log_magnitude, _), transposed = heard(tone(midi, -0.5, 0.0), midi)
    assert transposed == pytest.approx(key - midi)
    assert cents_off(log_magnitude, key) < 10


@pytest.mark.parametrize(("midi", "key"), [(36.0, 48), (43.2, 48), (79.0, 72), (90.4, 72)])
def test_a_pitch_outside_the_map_is_brought_to_its_edge(midi: float, key: int) -> None:
    (log_magnitude, _), transposed = heard(tone(midi, -0.5, 0.0), midi)
    assert transposed == pytest.approx(key - midi)
    assert cents_off(log_magnitude, key) < 30
    assert cents_off(spectrum.log_magnitude(tone(midi, -0.5, 0.0)), midi) < 10


def test_lowering_moves_the_partials_and_leaves_the_envelope() -> None:
    """Two bands of partials, the upper 20 dB down: lowered, partials lie elsewhere, the bands where they were."""
    time = np.arange(2 * RATE) / RATE
    f0 = 440.0
    note = sum(
        (1.0 if h * f0 < 5000 else 0.1) * np.sin(2 * np.pi * h * f0 * time + h * h) for h in range(1, 25)
    )
    before = spectrum.log_magnitude((0.02 * note).astype(np.float32))
    after = placing.lower(before, 5.0)

    def band(log_magnitude: np.ndarray, low: float, high: float) -> float:
        frames = log_magnitude[20:100, round(low / BIN_HZ) : round(high / BIN_HZ)]
        return float(frames.max(axis=1).mean())

    assert cents_off(after, hz_to_midi(f0) - 5.0) < 30
    fall_before = band(before, 2000, 4500) - band(before, 6500, 9000)
    fall_after = band(after, 2000, 4500) - band(after, 6500, 7500)
    assert fall_before == pytest.approx(20.0, abs=1.0)
    assert fall_after == pytest.approx(20.0, abs=6.0)


def test_without_a_pitch_nothing_is_transposed() -> None:
    assert heard(tone(80, 0.0, 0.0), None).transposed == 0.0


def test_noise_before_or_after_the_note_is_taken_away() -> None:
    rng = np.random.default_rng(1)
    note = tone(60, -0.5, 0.0, seconds=4.0, held=2.5)
    clean = heard(note).spectra.log_magnitude
    for lead in (0, RATE // 2):
        recording = np.concatenate([np.zeros(lead), note])
        noisy = recording + rng.normal(0.0, 1e-3, len(recording))
        left = heard(noisy).spectra.log_magnitude
        untreated = heard(noisy[lead : lead + 2 * RATE]).spectra.log_magnitude
        assert np.abs(left - clean).mean() < 0.6 * np.abs(untreated - clean).mean()
        # What is loud stays: the partials of the note.
        loud = clean > -50
        assert np.abs(left - clean)[loud].mean() < 0.5


def test_noise_is_subtracted_as_power() -> None:
    note = np.full((3, 4), -20.0, np.float32)
    noise = np.array([[-20.0, -23.0103, -40.0, -90.0]] * 5, np.float32)
    left = placing.subtract_noise(note, noise)
    np.testing.assert_allclose(left[0], [-90.0, -23.0103, -20.0436, -20.0], atol=0.01)


@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.5])
def test_a_short_note_is_held_on(seconds: float) -> None:
    """Cut off, or let go: either way it sounds on as if the key were still down."""
    whole = heard(tone(60, -0.3, 0.2)).spectra.log_magnitude
    cut = heard(tone(60, -0.3, 0.2)[: round(seconds * RATE)]).spectra.log_magnitude
    released = heard(tone(60, -0.3, 0.2, seconds=3.0, held=seconds)).spectra.log_magnitude
    loud = whole > -50
    for short in (cut, released):
        assert np.abs(short - whole)[loud].mean() < 1.0


def test_phases_are_known_as_far_as_the_recording_goes() -> None:
    note = tone(60, -0.3, 0.2)
    own = np.angle(spectrum.stft(note[: 154 * spectrum.HOP]))
    spectra = heard(note[: round(0.8 * RATE)]).spectra
    assert spectra.phase is not None
    assert 50 <= len(spectra.phase) < 60  # of 60 frames, the last look beyond the end
    loud = spectra.log_magnitude[5:50] > -40
    turned = np.angle(np.exp(1j * (spectra.phase[5:50] - own[5:50])))
    assert np.abs(turned[loud]).max() < 0.1
    assert heard(tone(79.0, -0.5, 0.0), 79.0).spectra.phase is None  # its partials were moved


def test_a_falling_note_falls_on_at_its_rate() -> None:
    frames = np.full((150, 8), -10.0, np.float32) - 0.2 * np.arange(150, dtype=np.float32)[:, None]
    held = placing.hold(frames[:60], 150)
    np.testing.assert_allclose(held, frames, atol=0.01)


def test_what_dies_away_by_itself_is_not_held_on() -> None:
    frames = np.maximum(-10.0 - 2.0 * np.arange(150, dtype=np.float32)[:, None], -90.0) * np.ones(
        (1, 8), "f4"
    )
    np.testing.assert_array_equal(placing.hold(frames, 150), frames)
    short = placing.hold(frames[:45], 150)
    np.testing.assert_array_equal(short[:45], frames[:45])
    assert (short[45:] == -90.0).all()
