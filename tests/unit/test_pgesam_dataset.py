"""Which notes the map learns from, and under which pitch."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from timbrel.errors import DataError
from timbrel.pgesam.dataset import map_notes


@dataclass(frozen=True)
class Heard:
    row: int
    instrument: str
    family: str
    split: str
    pitch: int
    f0_midi: float
    velocity: int = 100


def octave(instrument, split="train", family="organ", offset=0.0, first_row=0, keys=range(48, 73)):
    return [Heard(first_row + i, instrument, family, split, key, key + offset) for i, key in enumerate(keys)]


def test_an_instrument_on_key_keeps_all_its_notes():
    notes = map_notes(octave("a", offset=0.2))
    assert notes.pitch.tolist() == list(range(25))
    assert notes.row.tolist() == list(range(25))
    assert set(notes.family.tolist()) == {6}


def test_an_octave_below_is_filed_under_what_sounds():
    notes = map_notes(octave("a", offset=-12.1))
    assert notes.row.tolist() == list(range(12, 25))  # keys 60..72 sound at 48..60
    assert notes.pitch.tolist() == list(range(13))


def test_unvoiced_and_mistuned_notes_are_left_out():
    heard = octave("a")
    heard[3] = Heard(3, "a", "organ", "train", 51, float("nan"))
    heard[5] = Heard(5, "a", "organ", "train", 53, 53.6)
    rows = map_notes(heard).row.tolist()
    assert not {3, 5} & set(rows)
    assert len(rows) == 23


def test_training_instruments_are_numbered_first():
    heard = (
        octave("a", split="test") + octave("b", first_row=25) + octave("c", split="validation", first_row=50)
    )
    notes = map_notes(heard)
    assert notes.instruments == ("b", "a", "c")
    assert notes.of("train").instrument.tolist() == [0] * 25
    assert notes.of("validation", "test").row.min() == 0
    assert len(notes.of("validation")) == 25


def test_instruments_with_few_usable_notes_are_dropped():
    notes = map_notes(octave("a") + octave("b", keys=range(48, 52), first_row=25))
    assert notes.instruments == ("a",)


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(DataError, match="notes stage"):
        map_notes(octave("a", split="test"))
    with pytest.raises(DataError):
        map_notes([Heard(0, "a", "organ", "train", 60, float("nan"))] * 25)


def test_one_velocity_or_all():
    soft = [replace(note, row=note.row + 25, velocity=40) for note in octave("a")]
    heard = octave("a") + soft
    assert map_notes(heard).row.tolist() == list(range(25))
    assert map_notes(heard, velocity=40).row.tolist() == list(range(25, 50))
    notes = map_notes(heard, velocity=None)
    assert notes.velocity.tolist() == [100] * 25 + [40] * 25
    assert notes.of("train").velocity.tolist() == notes.velocity.tolist()
    assert notes.take(notes.velocity == 40).row.tolist() == list(range(25, 50))
    with pytest.raises(DataError):
        map_notes(soft)


def test_arrays_line_up():
    notes = map_notes(octave("a") + octave("b", split="test", first_row=25, offset=12.0))
    assert len(notes) == len(notes.row) == len(notes.pitch) == len(notes.split)
    assert np.array_equal(notes.pitch[notes.split == "test"], np.arange(12, 25))


def test_only_notes_of_one_velocity_unless_all_are_asked_for():
    soft = [Heard(25, "a", "organ", "train", 60, 60.1, velocity=40)]
    off = [Heard(26, "a", "organ", "train", 61, 62.1, velocity=40)]
    heard = octave("a") + soft + off
    assert set(map_notes(heard).velocity.tolist()) == {100}
    assert len(map_notes(heard)) == 25
    everything = map_notes(heard, velocity=None)
    assert everything.row.tolist() == list(range(26))
    assert everything.velocity.tolist() == [100] * 25 + [40]
    assert everything.of("train").velocity.tolist() == everything.velocity.tolist()
    with pytest.raises(DataError, match="of this velocity"):
        map_notes(heard, velocity=99)
