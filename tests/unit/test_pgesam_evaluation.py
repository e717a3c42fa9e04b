"""Figures and alarms of the map, on small maps whose answers are known."""

import numpy as np
import pytest

from timbrel.pgesam import evaluation


def grid(instrument_points, leak=0.0, pitches=5):
    """Every instrument at its point for every pitch, moved by ±leak along x at even and odd pitches."""
    mu, instrument, pitch = [], [], []
    for i, point in enumerate(instrument_points):
        for p in range(pitches):
            mu.append(np.add(point, (leak * (-1) ** p, 0.0)))
            instrument.append(i)
            pitch.append(p)
    return np.array(mu), np.array(instrument), np.array(pitch)


SQUARE = [(0.5, 0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5)]


def test_variances_of_a_known_map():
    statistics = evaluation.map_statistics(*grid(SQUARE, leak=0.1, pitches=4))
    assert statistics.v_inst_axes == pytest.approx((0.01, 0.0))
    assert statistics.v_pitch_axes == pytest.approx((0.25, 0.25))
    assert statistics.v_inst == pytest.approx(0.01)
    assert statistics.ratio == pytest.approx(0.02)
    assert statistics.stretch == pytest.approx(1.0)
    assert statistics.outside == 0.0
    assert statistics.alarms() == ()


def test_each_alarm_rings_for_its_own_fault():
    collapsed = evaluation.map_statistics(*grid([(0.05 * x, 0.05 * y) for x, y in SQUARE]))
    assert collapsed.alarms() == ("collapsed",)
    stretched = evaluation.map_statistics(*grid([(2 * x, 0.2 * y) for x, y in SQUARE]))
    assert stretched.stretch == pytest.approx(10.0)
    assert stretched.alarms() == ("stretched",)
    leaking = evaluation.map_statistics(*grid(SQUARE, leak=0.4))
    assert leaking.alarms() == ("pitch_leaks",)


def test_one_point_for_everything_is_a_collapse_without_a_division_by_zero():
    statistics = evaluation.map_statistics(*grid([(0.0, 0.0), (0.0, 0.0)]))
    assert statistics.ratio == float("inf")
    assert "collapsed" in statistics.alarms()


def test_pitch_accuracy_counts_arg_max():
    logits = np.eye(25)[[0, 3, 24, 7]]
    assert evaluation.pitch_accuracy(logits, np.array([0, 3, 24, 8])) == 0.75


def test_overfitting_alarm():
    assert evaluation.overfits(0.1, 0.5)
    assert not evaluation.overfits(0.1, 0.2)


def test_family_accuracy_is_a_vote_of_the_nearest():
    known = np.array([[0.0, 0], [0.1, 0], [0.2, 0], [1.0, 0], [1.1, 0], [1.2, 0]])
    families = np.array([4, 4, 4, 9, 9, 9])
    query = np.array([[0.05, 0], [1.05, 0], [0.0, 0]])
    assert evaluation.family_accuracy(known, families, query, np.array([4, 9, 9]), k=3) == pytest.approx(
        2 / 3
    )


def test_nearest_mean_averages_the_embeddings_of_neighbours():
    known = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0]])
    embeddings = np.stack([np.full((2, 3), value, dtype=np.float16) for value in (1.0, 3.0, 100.0)])
    answer = evaluation.nearest_mean(known, embeddings, np.array([[0.0, 0.0]]), k=2)
    np.testing.assert_allclose(answer, np.full((1, 2, 3), 2.0))
