"""Loss weights and learning rate over training."""

import pytest

from timbrel.errors import ConfigurationError
from timbrel.pgesam.curriculum import TERMS, Curriculum, learning_rate_factor

WEIGHTS = {
    "reconstruction": 0.8, "neighbour": 1.0, "regularisation": 0.1, "kl": 0.0039, "pitch": 0.12, "family": 0.07,
    "instrument": 0.007,
}  # fmt: skip


def test_constant_terms_stay_and_moving_terms_move():
    at = Curriculum(weights=WEIGHTS).at(0.25)
    for name in ("reconstruction", "regularisation", "kl", "pitch"):
        assert at[name] == WEIGHTS[name]
    assert at["neighbour"] == pytest.approx(0.5)  # 0.25 ** 0.5
    assert at["instrument"] == pytest.approx(0.007 * 0.25**0.8)
    assert at["family"] == pytest.approx(0.07 * (1 - 0.25**1.5))


def test_both_family_schedules_by_name():
    config = Curriculum(weights=WEIGHTS, family_schedule="one_minus_power")
    summary = Curriculum(weights=WEIGHTS, family_schedule="power_of_one_minus")
    assert config.at(0.25)["family"] == pytest.approx(0.07 * 0.875)
    assert summary.at(0.25)["family"] == pytest.approx(0.07 * 0.75**1.5)
    for schedule in (config, summary):
        assert schedule.at(0.0)["family"] == pytest.approx(0.07)
        assert schedule.at(1.0)["family"] == pytest.approx(0.0)


def test_neighbour_and_instrument_start_from_nothing():
    start, end = Curriculum(weights=WEIGHTS).at(0.0), Curriculum(weights=WEIGHTS).at(1.0)
    assert (start["neighbour"], start["instrument"]) == (0.0, 0.0)
    assert (end["neighbour"], end["instrument"]) == (1.0, 0.007)
    assert tuple(start) == TERMS


def test_wrong_terms_and_schedules_are_refused():
    with pytest.raises(ConfigurationError, match="reconstruction, neighbour"):
        Curriculum(weights={"reconstruction": 1.0})
    with pytest.raises(ConfigurationError, match="one_minus_power"):
        Curriculum(weights=WEIGHTS, family_schedule="linear")


def test_learning_rate_warms_up_then_halves_five_times():
    def factor(step):
        return learning_rate_factor(step, steps=1000, warmup_steps=9)

    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == factor(499) == 1.0
    assert [factor(step) for step in (500, 600, 700, 800, 900, 999)] == [
        1 / 2,
        1 / 4,
        1 / 8,
        1 / 16,
        1 / 32,
        1 / 32,
    ]
