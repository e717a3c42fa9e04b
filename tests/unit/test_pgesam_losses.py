"""Each loss against values worked out by hand."""

import math

import pytest
import torch

from timbrel.pgesam import losses


def test_reconstruction_is_the_mean_of_squares():
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    target = torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])
    assert losses.reconstruction(predicted, target).item() == pytest.approx((1 + 4 + 0 + 4) / 4)


def test_neighbour_pulls_within_and_pushes_between_instruments():
    mu = torch.tensor([[0.0, 0.0], [0.3, 0.4], [0.1, 0.0]])
    instrument = torch.tensor([7, 7, 9])
    # Same: one pair, D = 0.5. Different: D = 0.1 (hinge 0.15) and D = √(0.04 + 0.16) ≈ 0.447 (no hinge).
    expected = 0.5**2 + (0.15**2 + 0.0) / 2
    assert losses.neighbour(mu, instrument, margin=0.25).item() == pytest.approx(expected, rel=1e-5)


def test_neighbour_with_one_kind_of_pair_only():
    mu = torch.tensor([[0.0, 0.0], [0.0, 0.1]])
    apart = losses.neighbour(mu, torch.tensor([0, 1]), margin=0.25)
    together = losses.neighbour(mu, torch.tensor([0, 0]), margin=0.25)
    assert apart.item() == pytest.approx(0.15**2, rel=1e-5)
    assert together.item() == pytest.approx(0.1**2, rel=1e-5)


def test_neighbour_has_a_finite_gradient_for_coinciding_points():
    mu = torch.zeros(4, 2, requires_grad=True)
    losses.neighbour(mu, torch.tensor([0, 0, 1, 1]), margin=0.25).backward()
    assert torch.isfinite(mu.grad).all()


def test_regularisation_begins_at_the_unit_circle():
    mu = torch.tensor([[0.6, 0.8], [0.0, 0.0], [3.0, 4.0]])
    assert losses.regularisation(mu).item() == pytest.approx((0 + 0 + 4) / 3, rel=1e-6)


def test_kl_is_zero_for_the_unit_normal_and_known_elsewhere():
    assert losses.kl(torch.zeros(3, 2), torch.zeros(3, 2)).item() == pytest.approx(0.0)
    mu, log_variance = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, math.log(4.0)]])
    # -½ [(1 + 0 - 1 - 1) + (1 + log 4 - 4 - 4)], one note
    expected = -0.5 * (-1.0 + (1 + math.log(4.0) - 8))
    assert losses.kl(mu, log_variance).item() == pytest.approx(expected, rel=1e-6)
    assert losses.kl(mu.repeat(5, 1), log_variance.repeat(5, 1)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("term", "classes"), [(losses.pitch, 25), (losses.family, 11), (losses.instrument, 180)]
)
def test_classifiers_are_cross_entropies(term, classes):
    even = torch.zeros(4, classes)
    target = torch.tensor([0, 1, 2, classes - 1])
    assert term(even, target).item() == pytest.approx(math.log(classes), rel=1e-6)
    sure = torch.full((1, classes), 0.0)
    sure[0, 3] = 2.0
    expected = math.log(math.exp(2.0) + classes - 1) - 2.0
    assert term(sure, torch.tensor([3])).item() == pytest.approx(expected, rel=1e-6)
