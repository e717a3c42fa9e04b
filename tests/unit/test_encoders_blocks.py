"""Style by hand: means, deviations and Gram matrices of channels small enough to work out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timbrel.encoders.blocks import gram, moments, style_of
from timbrel.encoders.style import statistics
from timbrel.errors import ConfigurationError

# One sound, two channels of two bands and two frames; then one channel of one band and two frames.
MAPS = {
    "early": torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]]),
    "late": torch.tensor([[[[0.0, 4.0]]]]),
}


def test_moments_are_each_channels_mean_and_population_deviation() -> None:
    # 1, 3, 5, 7: mean 4, squares of 9 + 1 + 1 + 9 over 4 positions. 0, 4: mean 2, deviation 2.
    # A constant channel has the root of the small number that keeps the slope finite.
    wanted = [4.0, 2.0, np.sqrt(5.0), np.sqrt(1e-5), 2.0, 2.0]
    np.testing.assert_allclose(moments(MAPS)[0], wanted, rtol=1e-5)
    torch.testing.assert_close(moments(MAPS), statistics(MAPS))


def test_gram_is_the_upper_triangle_of_products_by_position() -> None:
    # (1 + 9 + 25 + 49) / 4, 2 (1 + 3 + 5 + 7) / 4, 4 · 4 / 4; then (0 + 16) / 2.
    np.testing.assert_allclose(gram(MAPS)[0], [21.0, 8.0, 4.0, 8.0], rtol=1e-6)


def test_gram_does_not_know_where_things_are_but_what_goes_together() -> None:
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
    moved = maps.flatten(2)[:, :, torch.from_numpy(rng.permutation(20))].unflatten(2, (4, 5))
    torch.testing.assert_close(gram({"b": moved}), gram({"b": maps}))
    torch.testing.assert_close(moments({"b": moved}), moments({"b": maps}))
    apart = maps.clone()
    apart[:, 0] = apart[:, 0].flip(-1)
    torch.testing.assert_close(moments({"b": apart}), moments({"b": maps}))
    assert (gram({"b": apart}) - gram({"b": maps})).abs().max() > 0.1


def test_blocks_are_chosen_by_name() -> None:
    torch.testing.assert_close(style_of(MAPS), moments(MAPS))
    torch.testing.assert_close(style_of(MAPS, ["late"]), torch.tensor([[2.0, 2.0]]))
    torch.testing.assert_close(
        style_of(MAPS, ("late", "early"), "gram"), torch.tensor([[8.0, 21.0, 8.0, 4.0]])
    )
    with pytest.raises(ConfigurationError, match="no block 'middle': there are early, late"):
        style_of(MAPS, ["early", "middle"])
    with pytest.raises(ConfigurationError, match="no style 'colour': there are moments, gram"):
        style_of(MAPS, None, "colour")
