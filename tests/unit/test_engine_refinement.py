"""The search around a place, over a world whose sounds are known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from timbrel.codec import spectrum
from timbrel.engine.refinement import WIDE_RINGS, around, loudness_matched_distances, refine


def world(places: np.ndarray, key: int, frames: int) -> np.ndarray:
    """x tilts the spectrum, y bends it: the nearer two places, the nearer their sounds. Level differs by key."""
    axis = np.linspace(-1.0, 1.0, spectrum.BINS)
    shape = -40.0 + 12.0 * (places[:, :1] * axis + places[:, 1:] * (axis**2 - 1 / 3)) + 0.1 * (key - 60)
    return np.repeat(shape[:, None, :], frames, axis=1).astype(np.float32)


@pytest.mark.parametrize("true", [(0.3, -0.2), (-0.1, 0.25), (0.0, 0.0)])
def test_the_place_that_sounds_like_the_recording_is_found(true: tuple[float, float]) -> None:
    recording = world(np.array([true]), 60, 150)[0] + np.float32(6.0)  # another level
    named = np.array([0.1, 0.0])
    found = refine(world, recording, named, 60, 1.0)
    assert np.hypot(*(found.place - true)) < 0.1 * (np.hypot(*(named - true)) > 0.1) + 0.07
    assert found.distance <= found.started_at


def test_a_place_that_is_right_stays() -> None:
    named = np.array([0.2, 0.2])
    found = refine(world, world(named[None], 55, 150)[0], named, 55, 1.0)
    np.testing.assert_allclose(found.place, named)
    assert found.distance == pytest.approx(0.0, abs=1e-3)


def test_it_stays_on_the_map_and_asks_twice() -> None:
    asked: list[np.ndarray] = []

    def spectra(places: np.ndarray, key: int, frames: int) -> np.ndarray:
        asked.append(places)
        return world(places, key, frames)

    refine(spectra, world(np.array([[2.0, 0.0]]), 60, 150)[0], np.array([0.95, 0.0]), 60, 1.0)
    assert len(asked) == 2
    assert max(np.linalg.norm(places, axis=1).max() for places in asked) <= 1.0 + 1e-9


def test_rings_lie_around_the_place() -> None:
    places = around(np.array([0.1, 0.2]), WIDE_RINGS, 1.0)
    distances = np.linalg.norm(places - [0.1, 0.2], axis=1)
    expected = [radius for radius, count in WIDE_RINGS for _ in range(count)]
    np.testing.assert_allclose(distances, expected)
    assert len(np.unique(places.round(9), axis=0)) == len(places)


def test_level_alone_is_no_distance() -> None:
    rng = np.random.default_rng(2)
    note = rng.uniform(-60, -20, (10, spectrum.BINS)).astype(np.float32)
    louder = spectrum.to_decibels(2.0 * spectrum.to_magnitude(note))
    other = rng.uniform(-60, -20, (10, spectrum.BINS)).astype(np.float32)
    distances = loudness_matched_distances(note, np.stack([louder, other]))
    assert distances[0] < 0.01
    assert distances[1] > 10.0
