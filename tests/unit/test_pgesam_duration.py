"""Notes of other lengths: attack kept, release kept, no step at the join."""

import numpy as np
import pytest

from timbrel.errors import InputError
from timbrel.pgesam.duration import HELD_FRAMES, STEADY_FROM, with_duration


@pytest.fixture
def note():
    """A ramp that falls slowly while held and quickly in the release, in each of two dimensions."""
    held = np.linspace(10.0, 6.0, HELD_FRAMES)
    release = np.linspace(6.0, -5.0, 75)
    return np.stack([np.concatenate([held, release])] * 2, axis=1).astype(np.float32)


def test_the_full_length_is_the_note_itself(note):
    np.testing.assert_array_equal(with_duration(note, 300), note)


@pytest.mark.parametrize("frames", [8, 38, 75, 150, 299, 301, 450, 600])
def test_attack_stays_and_the_end_is_the_learned_end(note, frames):
    shaped = with_duration(note, frames)
    assert shaped.shape == (frames, 2)
    attack = min(6, frames - max(2, min(75, frames // 4)))
    np.testing.assert_array_equal(shaped[:attack], note[:attack])
    np.testing.assert_allclose(shaped[-1], note[-1], atol=1e-5)


@pytest.mark.parametrize("frames", [38, 75, 150, 299, 450])
def test_the_release_joins_without_a_step(note, frames):
    shaped = with_duration(note, frames)[:, 0]
    release = max(2, min(75, frames // 4)) if frames < 300 else 75
    join = frames - release
    assert abs(shaped[join] - shaped[join - 1]) < 0.1


def test_a_longer_note_stretches_only_what_is_steady(note):
    shaped = with_duration(note, 450)
    np.testing.assert_array_equal(shaped[:STEADY_FROM], note[:STEADY_FROM])
    # The held part now takes 375 frames; its last frame is the last held frame of the original.
    np.testing.assert_allclose(shaped[374], note[HELD_FRAMES - 1], atol=1e-5)
    np.testing.assert_allclose(shaped[375:], note[HELD_FRAMES:], atol=1e-5)


def test_impossible_lengths_are_refused(note):
    with pytest.raises(InputError, match="at least 8 frames"):
        with_duration(note, 7)
    with pytest.raises(InputError, match="more than 225"):
        with_duration(note[:225], 100)
