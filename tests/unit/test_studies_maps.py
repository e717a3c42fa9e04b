"""Studies that train maps: what each row trains, and that it does train (a few steps, a small world)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.map_notes import map_notes_of

from timbrel.errors import DataError
from timbrel.notes.families import FAMILIES
from timbrel.pgesam.curriculum import TERMS, Curriculum
from timbrel.pgesam.vae import VaeShape
from timbrel.pgesam.vae_training import VaeTraining
from timbrel.studies import maps, table

FRAMES, PITCHES = 10, 25
SPLITS = ("train",) * 6 + ("validation", "test")
CURRICULUM = Curriculum(weights=dict.fromkeys(TERMS, 0.5))
TRAINING = VaeTraining(
    steps=3, batch_instruments=4, batch_pitches=4, learning_rate=1e-3, weight_decay=0.0, warmup_steps=0, margin=0.25,
    sample_scale=0.1, input_noise=0.0, mixed_share=0.5, decoded_notes=16, evaluate_every=3, seed=1,
)  # fmt: skip
SHAPE = VaeShape(instruments=6, frames=FRAMES, channels=(8,) * 5, hidden=(16,) * 4, head_width=8, dropout=0.0)


@pytest.fixture(scope="module")
def setup() -> maps.MapTraining:
    """Eight instruments of three families, two of them held out, at 25 pitches."""
    entries = [(i, i % 3, p, SPLITS[i]) for i in range(8) for p in range(PITCHES)]
    rng = np.random.default_rng(2)
    embeddings = rng.standard_normal((len(entries), FRAMES, 128)).astype(np.float16)
    return maps.MapTraining(
        embeddings=embeddings,
        notes=map_notes_of(entries),
        shape=SHAPE,
        training=TRAINING,
        curriculum=CURRICULUM,
        device=torch.device("cpu"),
    )


def test_each_variant_leaves_out_one_term() -> None:
    made = maps.variants(CURRICULUM)
    assert list(made) == [
        "full", "no kl", "no regularisation", "no neighbour", "no family", "no pitch", "no instrument",
        "no reconstruction", "family schedule power_of_one_minus",
    ]  # fmt: skip
    for name, curriculum in made.items():
        missing = {term for term, weight in curriculum.weights.items() if weight == 0.0}
        assert missing == ({name.removeprefix("no ")} if name.startswith("no ") else set())
    assert made["family schedule power_of_one_minus"].at(0.25)["family"] == pytest.approx(0.5 * 0.75**1.5)


def test_the_ablations_train_every_variant_and_seed(setup: maps.MapTraining, tmp_path) -> None:
    study = maps.ablations(setup, [1, 2])
    assert len(study.rows) == 18
    small = replace(study, rows=[row for row in study.rows if row.labels["variant"] in ("full", "no kl")])
    full, no_kl = table.run(small, tmp_path, {})
    assert (full.labels, full.runs) == ({"variant": "full"}, 2)
    for prefix in ("train", "heldout"):
        statistics = [full.mean[f"{prefix}.{name}"] for name in ("v_inst", "v_pitch", "v_inst_over_v_pitch")]
        assert all(np.isfinite(statistics))
        assert 0.0 <= full.mean[f"{prefix}.family_knn"] <= 1.0
    assert full.mean["train.v_inst"] != pytest.approx(no_kl.mean["train.v_inst"], rel=0.01)
    # The same seed and the same settings: the same map.
    again = study.rows[0].compute()
    assert again["heldout.v_inst"] == pytest.approx(setup.seeded(1).fit_and_measure()["heldout.v_inst"])
    assert "| full | " in (tmp_path / "ablations.md").read_text()


def test_a_map_of_more_dimensions_is_trained_and_measured(setup: maps.MapTraining, tmp_path) -> None:
    flat, deep = table.run(maps.dimensions(setup, [1], sizes=(2, 4)), tmp_path, {})
    assert [flat.labels, deep.labels] == [{"dimensions": 2}, {"dimensions": 4}]
    assert flat.mean["heldout.embedding_mse"] == pytest.approx(
        setup.seeded(1).fit_and_measure()["heldout.embedding_mse"], rel=1e-4
    )
    assert deep.mean["heldout.embedding_mse"] != flat.mean["heldout.embedding_mse"]


def test_a_note_does_not_vote_for_its_own_instrument() -> None:
    """Two instruments of one family side by side, a third of another family far away."""
    notes = map_notes_of([(i, 0 if i < 2 else 1, p, "train") for i in range(3) for p in range(PITCHES)])
    mu = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0]])[notes.instrument]
    assert maps._family_knn(mu, notes, mu, notes) == pytest.approx(2 / 3)


def test_a_family_is_held_out_whole_and_the_training_is_numbered_first(setup: maps.MapTraining) -> None:
    held = maps.hold_out(setup.notes, FAMILIES[0])
    lost = held.of(maps.UNSEEN)
    assert set(lost.family) == {0}
    assert 0 not in held.of("train", "validation", "test").family
    assert sorted(np.unique(held.of("train").instrument)) == [0, 1, 2, 3]
    assert held.instruments[:4] == ("instrument 1", "instrument 2", "instrument 4", "instrument 5")
    for before, after in zip(setup.notes.instrument, held.instrument, strict=True):
        assert held.instruments[after] == setup.notes.instruments[before]
    with pytest.raises(DataError, match="cannot be held out"):
        maps.hold_out(setup.notes, FAMILIES[7])


def test_an_unseen_family_is_placed_among_those_that_were_heard(setup: maps.MapTraining, tmp_path) -> None:
    study = maps.unseen_families(setup, [FAMILIES[0]], [1])
    (line,) = table.run(study, tmp_path, {})
    assert line.labels == {"family": FAMILIES[0]}
    assert 0.0 <= line.mean["unseen.pitch_accuracy"] <= 1.0
    assert line.mean["unseen.distance"] > 0.0
    assert FAMILIES[0] not in line.words["unseen.nearest"]
    assert set(line.words["unseen.nearest"].split()) & {FAMILIES[1], FAMILIES[2]}
    assert line.words["unseen.nearest"] in (tmp_path / "unseen-family.md").read_text()


def test_the_shares_of_families_and_the_spread_of_a_square() -> None:
    assert maps._shares([1, 1, 1, 2]) == f"{FAMILIES[1]} 75 %, {FAMILIES[2]} 25 %"
    assert maps.spread_of(np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])) == pytest.approx(
        2**0.5
    )
