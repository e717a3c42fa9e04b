"""What the velocity token is worth, on a generator whose level is its velocity and notes worked out by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from timbrel.evaluation.listening import HeardNote
from timbrel.evaluation.velocity import figures, jobs, struck
from timbrel.evaluation.written import Trained
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.vae_training import Encoded

FRAMES, SEEN = 4, 2


class Level:
    """Every number of a note is the place's x plus velocity / 127; without a velocity, plus 100 / 127."""

    shape = SimpleNamespace(frames=FRAMES)

    def generate(
        self, position: torch.Tensor, pitch: torch.Tensor, velocity: Any = None, *, frames: int
    ) -> Any:
        level = position[:, 0] + (100 / 127 if velocity is None else velocity)
        return level[:, None, None].expand(-1, frames, 3)


def notes_of(entries: list[tuple[int, int, int, int, str]], instruments: tuple[str, ...]) -> MapNotes:
    row, instrument, pitch, velocity, split = (np.array(column) for column in zip(*entries, strict=True))
    return MapNotes(
        row=row, instrument=instrument, family=0 * row, pitch=pitch, velocity=velocity, split=split,
        instruments=instruments,
    )  # fmt: skip


@pytest.fixture
def world() -> SimpleNamespace:
    """Rows 0-2 at velocity 100, rows 3-7 at others; x is 1 for "plain" and 2 for "bell", both held out."""
    main = notes_of(
        [(0, 0, 5, 100, "train"), (1, 1, 5, 100, "test"), (2, 2, 5, 100, "validation")],
        ("known", "plain", "bell"),
    )
    others = notes_of(
        [
            (3, 0, 5, 127, "test"),  # plain: as bright as its velocity asks
            (4, 0, 6, 25, "test"),  # plain: as at 100, though softer; no note at 100 of that pitch
            (5, 1, 5, 25, "validation"),  # bell: half-way
            (1, 0, 5, 100, "test"),  # not of another velocity
            (6, 2, 5, 25, "train"),  # not held out
            (7, 3, 5, 25, "test"),  # no place on the map
        ],
        ("plain", "bell", "known", "nowhere"),
    )
    levels = [0.0, 1 + 100 / 127, 2 + 100 / 127, 1 + 127 / 127, 1 + 100 / 127, 2 + 62.5 / 127, 0.0, 0.0]
    embeddings = np.tile(np.array(levels)[:, None, None], (1, FRAMES, 3))
    embeddings[:, SEEN:] = 99.0  # beyond what is compared
    mu = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=np.float32)
    vae: Any = SimpleNamespace(shape=SimpleNamespace(frames=SEEN))
    generator: Any = Level()
    trained = Trained(
        vae=vae, generator=generator, notes=main, embeddings=embeddings, device=torch.device("cpu"),
        encoded=Encoded(mu=mu, sigma=mu, pitch_logits=mu),
    )  # fmt: skip
    source = np.array(["dx7", "dx7", "soundfont", "dx7", "dx7", "dx7"])
    return SimpleNamespace(trained=trained, made=struck(trained, others, source))


def test_held_out_notes_of_other_velocities_are_written_twice(world: SimpleNamespace) -> None:
    made = world.made
    assert made.notes.row.tolist() == [3, 4, 5]
    assert made.own[:, 0, 0].tolist() == pytest.approx([1 + 127 / 127, 1 + 25 / 127, 2 + 25 / 127])
    assert made.main[:, 0, 0].tolist() == pytest.approx([1 + 100 / 127, 1 + 100 / 127, 2 + 100 / 127])
    assert made.own_error.tolist() == pytest.approx([0, (75 / 127) ** 2, (37.5 / 127) ** 2], abs=1e-6)
    assert made.main_error.tolist() == pytest.approx([(27 / 127) ** 2, 0, (37.5 / 127) ** 2], abs=1e-6)
    # The real notes at 100 of the same pitch: row 1 for row 3, none for row 4, row 2 for row 5.
    assert made.change[[0, 2]].tolist() == pytest.approx([(27 / 127) ** 2, (37.5 / 127) ** 2], abs=1e-6)
    assert math.isnan(made.change[1])


def test_the_figures_by_group(world: SimpleNamespace) -> None:
    heard = [HeardNote(midi=60.0, lsd_db=(level,), defects=None) for level in (2.0, 5.0, 3.0, 4.0)]
    audio = np.arange(8)[:, None].repeat(2, axis=1)
    asked: Any = jobs(world.made, audio, np.array([0, 2]), frames=SEEN)
    assert [int(job.reference[0]) for job in asked] == [3, 5, 3, 5]
    assert [job.embedding[0, 0] for job in asked[::2]] == pytest.approx([2.0, 1 + 100 / 127])
    report = figures(world.made, np.array([0, 2]), heard)
    assert (report["notes"], report["instruments"]) == (3, 2)
    own, main = (75**2 + 37.5**2) / 127**2 / 3, (27**2 + 37.5**2) / 127**2 / 3
    assert report["embedding_mse"] == pytest.approx({"own": own, "main": main}, rel=1e-5)
    assert report["real_change_mse"] == pytest.approx((27**2 + 37.5**2) / 127**2 / 2, rel=1e-5)
    assert report["by_source"]["dx7"]["notes"] == 2
    assert report["by_source"]["dx7"]["own_nearer"] == 0.5
    assert report["by_velocity"]["101-127"]["own_nearer"] == 1.0
    # Of two changes, the larger is the bell's.
    assert report["changed_most"]["notes"] == 1
    assert report["changed_most"]["real_change_mse"] == pytest.approx((37.5 / 127) ** 2, rel=1e-5)
    # Own 2 and 5 dB, main 3 and 4.
    assert report["lsd_db"] == {"notes": 2, "own": 3.5, "main": 3.5, "own_nearer": 0.5}


def test_a_set_of_one_velocity_has_no_such_figures(world: SimpleNamespace) -> None:
    none = struck(world.trained, world.trained.notes, np.array(["dx7"] * 3))
    assert len(none) == 0
    assert jobs(none, np.zeros((0, 2)), np.array([], dtype=int), frames=SEEN) == []
    assert figures(none, np.array([], dtype=int), []) == {}
