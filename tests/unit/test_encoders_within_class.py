"""What one instrument does by itself counts little, and what tells instruments apart is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.encoders.within_class import whitening, within_class_covariance
from timbrel.errors import DataError


def test_the_covariance_is_about_each_instruments_own_mean() -> None:
    styles = np.array([[1, 0], [3, 0], [2, 3], [10, 10], [10, 12], [16, 11], [50, -50], [90, 9]])
    instruments = np.array(["a", "a", "a", "b", "b", "b", "two", "two"])
    # About (2, 1): (-1, -1), (1, -1), (0, 2); about (12, 11): (-2, -1), (-2, 1), (4, 0); two notes show no mean.
    expected = np.array([[2 + 24, 0 + 0], [0 + 0, 6 + 2]]) / 4
    np.testing.assert_allclose(within_class_covariance(styles, instruments), expected)


def test_directions_in_which_instruments_move_are_shortened() -> None:
    styles = np.array([[-2, 0], [0, 0], [2, 0], [8, -1], [10, 0], [12, 1]])
    found = whitening(styles, np.array([0, 0, 0, 1, 1, 1]), floor=0.5)
    covariance = np.array([[16, 4], [4, 2]]) / 4
    lifted = covariance + 0.5 * (18 / 4) / 2 * np.eye(2)
    # W S' W is the unit matrix, but for the scale.
    whole = found @ lifted @ found
    np.testing.assert_allclose(whole / whole[0, 0], np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found, found.T)
    assert np.mean(np.linalg.eigvalsh(found) ** 2) == pytest.approx(1.0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_neither_scale_nor_place_nor_order_of_the_styles_matters(seed: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    instruments = np.repeat(np.arange(6), 4)
    styles = rng.standard_normal((24, 5)) @ rng.standard_normal((5, 5))
    found = whitening(styles, instruments, floor)
    shuffled = rng.permutation(24)
    again = whitening(7.0 * styles[shuffled] + 3.0, instruments[shuffled], floor)
    np.testing.assert_allclose(again, found, rtol=1e-6, atol=1e-8)
    # However steady a direction is: it is stretched by no more than the floor allows.
    values = np.linalg.eigvalsh(found)
    assert values.max() / values.min() <= np.sqrt((5 + floor) / floor) * (1 + 1e-9)


def test_where_no_instrument_has_three_notes_that_is_said() -> None:
    with pytest.raises(DataError, match="no instrument has 3 notes"):
        whitening(np.eye(4), np.array([0, 0, 1, 1]))
