"""Notes of other lengths: attack, vibrato, decay and release at their own speed, no step at a join."""

import numpy as np
import pytest

from timbrel.errors import InputError
from timbrel.pgesam.duration import END_DB, HELD_FRAMES, frames_kept, with_duration

BINS = 6
FLOOR = -80.0
LENGTHS = (8, 15, 38, 75, 150, 299, 300, 301, 450, 600, 750)


def level(frames):
    return 10 * np.log10(np.sum(10 ** (frames / 10), axis=1))


def note(decay=0.0, release=4.0, vibrato=2.0):
    """In dB: an attack of 10 frames; ``decay`` dB lost per frame, the top bin twice as fast; vibrato with 15 frames to
    a turn in the second bin; after frame 225 ``release`` dB more lost per frame. Nothing falls below the floor."""
    time = np.arange(300.0)
    slopes = np.array([1.0, 1, 1, 1, 1, 2]) * decay
    levels = -10.0 - np.outer(time, slopes) - 3.0 * np.arange(BINS)
    levels[:, 1] += vibrato * np.sin(2 * np.pi * time / 15)
    levels[:10] -= np.linspace(30, 0, 10)[:, None]
    levels -= release * np.maximum(time - (HELD_FRAMES - 1), 0)[:, None]
    return np.maximum(levels, FLOOR).astype(np.float32)


def test_the_full_length_is_the_note_itself():
    np.testing.assert_allclose(with_duration(note(), 300), note(), atol=1e-4)


@pytest.mark.parametrize(
    ("frames", "kept"), [(8, 4), (38, 19), (150, 75), (299, 224), (300, 300), (301, 225), (750, 225)]
)
def test_frames_that_are_the_notes_own_are_counted(frames, kept):
    assert frames_kept(300, frames) == kept
    np.testing.assert_allclose(with_duration(note(), frames)[:kept], note()[:kept], atol=1e-4)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_attack_and_release_keep_their_speed(frames, decay):
    given = note(decay)
    told = with_duration(given, frames)
    assert told.shape == (frames, BINS)
    assert told.dtype == np.float32
    released = min(75, round(frames / 2))
    held = min(HELD_FRAMES, frames - released)
    np.testing.assert_array_equal(told[:held], given[:held])
    if released >= 19:  # a quarter of a second: the release of 4 dB a frame has room
        fall = np.diff(told[frames - released - 1 : frames - released + 5, 0])
        np.testing.assert_allclose(fall, -4.0 - decay, atol=0.01)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("release", [0.0, 0.3, 4.0])
def test_every_note_has_died_away_at_its_end(frames, release):
    told = with_duration(note(0.05, release), frames)
    levels = level(told)
    assert levels[-1] <= levels.max() - END_DB + 0.01
    # It dies away; it is not cut: no frame of the release loses the larger part of the way.
    released = min(75, round(frames / 2))
    drops = -np.diff(levels[-released - 1 :])
    assert drops.max() <= max(5.0, 2.5 * END_DB / released)
    assert drops.min() > -0.5


@pytest.mark.parametrize("frames", [450, 600, 750])
def test_a_sustained_note_goes_on_at_its_level_with_its_vibrato(frames):
    told = with_duration(note(), frames)
    going_on = told[HELD_FRAMES : frames - 75]
    np.testing.assert_allclose(going_on[:, 0], told[HELD_FRAMES - 1, 0], atol=0.1)
    assert np.abs(np.diff(level(told[20 : frames - 75]))).max() < 0.5
    swing = going_on[:, 1] - going_on[:, 1].mean()
    assert swing.max() == pytest.approx(2.0, abs=0.3)
    turns = np.count_nonzero(np.diff(np.sign(swing))) / 2
    assert turns == pytest.approx(len(going_on) / 15, abs=1.5)


def test_a_swell_does_not_come_back():
    given = note()
    given[75:HELD_FRAMES] += np.linspace(0, 6, 150, dtype=np.float32)[:, None]
    told = with_duration(given, 600)
    np.testing.assert_allclose(told[HELD_FRAMES:525, 0], given[HELD_FRAMES - 1, 0], atol=0.2)


def test_a_decaying_note_goes_on_decaying_bin_by_bin():
    told = with_duration(note(decay=0.1), 600)
    slopes = np.diff(told[100:525], axis=0)
    np.testing.assert_allclose(slopes[:, 0], -0.1, atol=0.02)
    further = np.maximum(note(decay=0.1)[224, 5] - 0.2 * np.arange(1, 176), FLOOR)
    np.testing.assert_allclose(told[HELD_FRAMES:400, 5], further, atol=1.0)
    assert told.min() >= FLOOR - END_DB


def test_what_has_decayed_at_the_end_of_the_held_part_still_dies_away_in_a_short_note():
    # A bin that is silent at frame 225 has no release of its own.
    given = note()
    given[:, 4] = np.maximum(-10 - 1.0 * np.arange(300), FLOOR)
    told = with_duration(given, 38)
    assert told[18, 4] == pytest.approx(-28)
    np.testing.assert_allclose(np.diff(told[18:24, 4]), -4.0, atol=0.3)


def test_impossible_lengths_are_refused():
    with pytest.raises(InputError, match="at least 8 frames"):
        with_duration(note(), 7)
    with pytest.raises(InputError, match="more than 225"):
        with_duration(note()[:225], 100)
