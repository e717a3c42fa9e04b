"""The locate measurement: distances worked out by hand, and a bundle in which places are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import tiny_bundle_folder
from support.tiny_models import tone

from timbrel.engine.engine import Engine
from timbrel.errors import DataError
from timbrel.evaluation.locate import (
    RECORDED_OTHERWISE,
    Case,
    LocateSettings,
    distance,
    measure,
    steadiness,
    summary,
)
from timbrel.notes.noteset import Note, NoteSet, NoteSetWriter
from timbrel.stages.evaluate import open_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(tiny_bundle_folder()) as opened:
        yield opened


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> NoteSet:
    """Three held-out tones and one of training, at keys 54 and 66."""
    folder = tmp_path_factory.mktemp("locate") / "notes"
    with NoteSetWriter(folder) as writer:
        for number, (x, y) in enumerate([(-0.4, 0.3), (0.1, -0.3), (0.4, 0.4), (0.0, 0.0)]):
            for key in (54, 66):
                note = Note(
                    row=0, note_id=f"tone-{number}-{key}", instrument=f"tone-{number}", name="Tone",
                    family="organ" if number % 2 else "reed", source="dx7", pitch=key, velocity=100,
                    split="train" if number == 3 else "test", f0_midi=float(key), f0_confidence=0.9,
                )  # fmt: skip
                writer.add(note, tone(key, x, y))
    return NoteSet.open(folder)


def test_a_note_later_and_softer_is_no_distance_away() -> None:
    note = tone(60, 0.0, 0.0)
    late = np.concatenate([np.zeros(320 * 20, np.float32), 0.3 * note])
    assert distance(note, late) < 0.5
    assert distance(note, tone(60, 0.5, 0.0)) > 1.0


def test_shares_are_counted_by_hand() -> None:
    def case(family: str, located: float, nearest: float) -> Case:
        return Case(
            family=family, instrument=family, pitch=60, distances={"located": located}, random=(4.0, 6.0),
            nearest_patch=nearest,
        )  # fmt: skip

    figures = summary(
        [case("reed", 3.0, 2.0), case("reed", 4.5, math.nan), case("organ", 7.0, 8.0)], "located"
    )
    assert figures["recordings"] == 3
    assert figures["closer_than_random"] == pytest.approx(3 / 6)
    assert figures["closer_than_mean_random"] == pytest.approx(2 / 3)
    assert figures["closer_than_nearest_patch"] == pytest.approx(1 / 2)
    assert figures["median_lsd"] == 4.5
    assert figures["by_family"]["reed"]["closer_than_random"] == pytest.approx(3 / 4)
    assert figures["by_family"]["organ"]["closer_than_nearest_patch"] == 1.0


def test_located_notes_are_nearer_than_random_ones(engine: Engine, notes: NoteSet) -> None:
    settings = LocateSettings(pitches=(54, 66), draws=3, seed=1)
    found = measure(engine, notes, settings, banks=Path("banks"))
    assert (found["recordings"], found["instruments"]) == (6, 3)
    located, refined = (found["results"][way] for way in ("located", "refined"))
    assert refined["closer_than_random"] > 0.7
    assert refined["median_lsd"] <= located["median_lsd"]
    assert set(located["by_family"]) == {"organ", "reed"}


def test_how_far_the_place_moves_is_told_for_each_way_of_recording(engine: Engine, notes: NoteSet) -> None:
    moved = steadiness(engine, notes, pitch=66, seed=1)
    assert list(moved) == [*RECORDED_OTHERWISE, "other_note"]
    assert moved["26_db_lower"]["p90"] < 0.001
    assert all(0 <= figures["median"] <= figures["p90"] for figures in moved.values())
    assert moved["other_note"]["p90"] > 0.3


def test_no_held_out_note_is_said_so(engine: Engine, notes: NoteSet) -> None:
    with pytest.raises(DataError, match="no held-out note"):
        measure(engine, notes, LocateSettings(pitches=(60,), draws=1, seed=1), banks=Path("banks"))
