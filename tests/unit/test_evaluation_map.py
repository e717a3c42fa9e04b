"""The measurements around the map, on worlds whose answers are worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from timbrel.codec.spectrum import FLOOR_DB, to_decibels
from timbrel.evaluation import smoothness
from timbrel.evaluation.f0_accuracy import f0_figures
from timbrel.evaluation.families import family_figures, left_out_accuracy
from timbrel.evaluation.pictures import draw_instruments, save_png
from timbrel.evaluation.report import write_report
from timbrel.evaluation.written import disc_points

BASS, FLUTE, REED = 0, 2, 7


def test_family_figures_beside_guessing() -> None:
    known = np.array([[0.0, 0], [0.1, 0], [0.2, 0], [1.0, 0]])
    families = np.array([BASS, BASS, BASS, FLUTE])
    query = np.array([[0.05, 0], [0.9, 0], [1.1, 0], [0.0, 0.1]])
    asked = np.array([BASS, FLUTE, REED, FLUTE])
    found = family_figures(known, families, query, asked, k=1)
    # Right: the first two. Chance: bass ¾ · ¼ + flute ¼ · ½. Majority: bass, one of four.
    assert found == pytest.approx(
        {"accuracy": 0.5, "chance": 0.3125, "majority": 0.25, "known": 4, "queries": 4}
    )


def test_a_point_is_no_neighbour_of_itself() -> None:
    points = np.array([[0.0, 0], [0.1, 0], [5.0, 0], [5.1, 0], [9.0, 0]])
    families = np.array([BASS, BASS, FLUTE, FLUTE, REED])
    assert left_out_accuracy(points, families, k=1) == pytest.approx(4 / 5)


def test_pitches_are_counted_among_what_is_voiced() -> None:
    asked = np.array([60.0, 60.0, 60.0, 60.0, 61.0])
    heard = np.array([60.4, 72.1, 60.6, math.nan, 61.0])
    family = np.array(["bass", "bass", "bass", "mallet", "mallet"])
    found = f0_figures(asked, heard, family)
    assert found["accuracy"] == pytest.approx(2 / 4)
    assert (found["notes"], found["voiced"], found["octave_errors"]) == (5, 4, 1)
    assert found["unvoiced_share"] == pytest.approx(1 / 5)
    assert found["median_error_cents"] == pytest.approx(50.0)  # of 40, 1210, 60, 0
    assert found["by_family"]["bass"]["accuracy"] == pytest.approx(1 / 3)
    assert found["by_family"]["mallet"]["voiced_share"] == 0.5


def test_nothing_voiced_is_no_accuracy() -> None:
    found = f0_figures(np.array([60.0]), np.array([math.nan]), np.array(["mallet"]))
    assert math.isnan(found["accuracy"])
    assert found["unvoiced_share"] == 1.0


def level(decibels: float) -> np.ndarray:
    """Two frames of three bins, all at one level."""
    return np.full((2, 3), decibels)


def test_a_straight_walk_of_equal_steps_is_smooth() -> None:
    walk = smoothness.walk([level(-60), level(-50), level(-40), level(-30)])
    assert walk.steps_db == pytest.approx((10, 10, 10))
    assert walk.distance_db == pytest.approx(30)
    assert (walk.largest_over_mean, walk.path_over_distance) == pytest.approx((1, 1))


def test_a_jump_and_a_detour_are_told_apart() -> None:
    jump = smoothness.walk([level(-60), level(-60), level(-60), level(-30)])
    assert jump.largest_over_mean == pytest.approx(3)
    assert jump.path_over_distance == pytest.approx(1)
    detour = smoothness.walk([level(-60), level(-40), level(-60), level(-40)])
    assert detour.largest_over_mean == pytest.approx(1)
    assert detour.path_over_distance == pytest.approx(3)
    still = smoothness.walk([level(-60), level(-60)])
    assert math.isnan(still.largest_over_mean)
    assert math.isnan(still.path_over_distance)
    figures = smoothness.summary([jump, detour, still])
    assert figures["largest_over_mean_step"] == pytest.approx(2)
    assert figures["path_over_distance"] == pytest.approx(2)


def test_a_crossfade_mixes_magnitudes_not_decibels() -> None:
    first = to_decibels(np.full((1, 2), 0.0))
    last = to_decibels(np.full((1, 2), 0.5))
    mixed = smoothness.crossfade(first, last, 2)
    np.testing.assert_allclose(mixed[0], FLOOR_DB, atol=1e-3)
    np.testing.assert_allclose(mixed[1], 20 * math.log10(0.25), atol=2e-3)
    np.testing.assert_allclose(mixed[2], 20 * math.log10(0.5), atol=2e-3)


def test_neighbours_are_pairs_of_near_points_each_once() -> None:
    points = np.array([[0.0, 0], [0.1, 0], [1.0, 0], [1.1, 0], [1.3, 0]])
    pairs = smoothness.neighbour_pairs(points, 10, k=1, rng=np.random.default_rng(0))
    assert {tuple(pair) for pair in pairs.tolist()} == {(0, 1), (2, 3), (3, 4)}
    assert len(smoothness.neighbour_pairs(points, 2, k=1, rng=np.random.default_rng(0))) == 2


def test_points_fill_the_disc_evenly() -> None:
    points = disc_points(20_000, 2, radius=0.8, rng=np.random.default_rng(0))
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() <= 0.8
    assert (radii < 0.4).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.01)


def test_a_small_figure_keeps_its_digits(tmp_path: Path) -> None:
    write_report(tmp_path / "a.json", {"ratio": 1.23456e-6, "none": math.nan, "whole": 3}, significant=True)
    assert json.loads((tmp_path / "a.json").read_text()) == {"ratio": 1.235e-6, "none": None, "whole": 3}


def test_the_map_is_one_small_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    family = np.arange(300) % 11
    split = np.where(np.arange(300) % 5 == 0, "test", "train")
    figure = draw_instruments(0.5 * rng.standard_normal((300, 2)), family, split)
    save_png(figure, tmp_path / "map.png")
    first = (tmp_path / "map.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert len(first) < 150_000
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["bass", "brass"]
    assert texts[-2:] == ["trained on", "held out"]
    save_png(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == first
