"""The pure functions: contrastive loss and style statistics by hand, recall on a table one can read."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from timbrel.encoders.contrastive import supervised_nt_xent
from timbrel.encoders.retrieval import recall
from timbrel.encoders.scaffold import of_picture
from timbrel.encoders.style import statistics
from timbrel.encoders.training import learning_rate_factor, unexplained


def test_the_loss_of_two_orthogonal_pairs_by_hand() -> None:
    # Each anchor: partner at cosine 1, two others at 0; -log(e^2 / (e^2 + 1 + 1)) at temperature 1/2.
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    loss = supervised_nt_xent(vectors, torch.tensor([0, 1, 0, 1]), 0.5)
    assert loss.item() == pytest.approx(math.log(math.exp(2.0) + 2.0) - 2.0, abs=1e-6)


def test_several_partners_count_by_their_mean_and_lonely_anchors_not_at_all() -> None:
    # Anchor 0 has partners at cosines 1 and 0, and a stranger at -1; the stranger has no partner.
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    norm = math.log(math.e + 1.0 + math.exp(-1.0))  # seen from 0, and from 1
    norm_2 = math.log(3.0)  # seen from 2: everything at a right angle
    expected = ((norm - 0.5) + (norm - 0.5) + norm_2) / 3
    loss = supervised_nt_xent(vectors, torch.tensor([7, 7, 7, 3]), 1.0)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_without_any_pair_the_loss_is_zero_and_has_a_gradient() -> None:
    vectors = torch.eye(3, requires_grad=True)
    loss = supervised_nt_xent(vectors, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad is not None


def test_style_is_mean_and_population_deviation_of_each_channel() -> None:
    first = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]])  # two channels of 2 x 2
    second = torch.tensor([[[[0.0, 6.0]]]])
    found = statistics({"first": first, "second": second})[0]
    expected = [4.0, 2.0, math.sqrt(5.0), 0.0, 3.0, 3.0]
    np.testing.assert_allclose(found.numpy(), expected, atol=4e-3)  # sqrt(1e-5) where nothing varies


def test_what_is_unexplained_is_the_mean_squared_distance() -> None:
    said = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert unexplained(said, torch.tensor([[1.0, 0.0], [3.0, 4.0]])).item() == pytest.approx((4.0 + 25.0) / 2)


def test_recall_takes_the_note_nearest_in_pitch_and_never_the_query_itself() -> None:
    # Patch a: notes at 60 and 62; b at 60; c at 61. The query is a's note at 60.
    labels = np.array(["a", "a", "b", "c"])
    pitches = np.array([60.0, 62.0, 60.0, 61.0])
    gallery = np.array([[1.0, 0.0], [0.8, 0.6], [0.9, 0.436], [0.0, 1.0]])
    query = np.array([[1.0, 0.0]])
    found = recall(query, gallery, labels=labels, pitches=pitches, asked=np.array([0]), at=(1, 2))
    assert found == {1: 0.0, 2: 1.0}  # b is nearer than a's other note, c is not


def test_recall_counts_a_patch_without_another_note_as_not_found() -> None:
    labels = np.array(["a", "b"])
    vectors = np.eye(2)
    found = recall(vectors, vectors, labels=labels, pitches=np.zeros(2), asked=np.array([0, 1]), at=(1, 10))
    assert found == {1: 0.0, 10: 0.0}


def test_the_learning_rate_rises_and_falls() -> None:
    factors = [learning_rate_factor(i, 100) for i in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[4] == pytest.approx(1.0)
    assert factors[99] == pytest.approx(0.01, abs=2e-3)
    assert all(a >= b for a, b in pairwise(factors[5:]))


def test_what_is_silent_is_no_part_of_the_picture_s_statistics() -> None:
    picture = torch.full((1, 80, 120), -2.0)
    picture[:, :, :40] = 1.0
    picture[:, 5, :40:2] = 3.0  # the loudest band comes and goes
    found = of_picture(picture)[0]
    mean, deviation, change = found[:80], found[80:160], found[160:240]
    assert mean[10].item() == pytest.approx(1.0, abs=1e-2)
    assert deviation[10].item() == pytest.approx(0.0, abs=1e-2)
    assert mean[5].item() == pytest.approx(2.0, abs=1e-2)
    assert deviation[5].item() == pytest.approx(1.0, abs=1e-2)
    assert change[5].item() == pytest.approx(2.0 * 39 / 40, abs=1e-2)
    assert found[240].item() == pytest.approx(40 / 120, abs=1e-3)
