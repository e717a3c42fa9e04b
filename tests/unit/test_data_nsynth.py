"""NSynth's published layout, made small: filters, the cap by instrument, splits, audio."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.nsynth_layout import write_part

from timbrel.errors import DataError
from timbrel.notes.noteset import NoteSet
from timbrel.notes.nsynth import collect_nsynth, read_examples, select_examples
from timbrel.notes.plan import NotePlan


@pytest.fixture(scope="module")
def nsynth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nsynth")
    train = {
        "bass_synthetic_000": (60,),
        "bass_synthetic_001": (59, 60, 61),
        "bass_synthetic_002": (59, 60, 61),
        "synth_lead_synthetic_005": (60, 90),
        "vocal_acoustic_003": (40, 90),
    }
    write_part(folder, "train", train, velocities=(50, 100))
    write_part(folder, "valid", {"organ_electronic_010": (60,), "organ_electronic_011": (60,)})
    write_part(
        folder,
        "test",
        {"organ_electronic_010": (61,), "organ_electronic_011": (61,), "flute_acoustic_002": (61,)},
    )
    return folder


def plan(**changes: Any) -> NotePlan:
    values: dict[str, Any] = {
        "pitches": tuple(range(48, 73)),
        "velocity": 100,
        "velocity_notes": 0,
        "velocities": (25, 127),
        "instruments_per_family": 2,
        "heldout_families": (),
        "shares": {},
    }
    return NotePlan(**{**values, **changes})


def test_filters_and_the_cap_by_instrument(nsynth: Path) -> None:
    examples = read_examples(nsynth, "train")
    assert len(examples) == 22
    chosen = select_examples(examples, plan(), per_family=2, seed=0)
    found = Counter(each.instrument for each in chosen)
    # The two basses that cover most stay, with all their notes; nothing sung lies in the range.
    assert found == {"bass_synthetic_001": 3, "bass_synthetic_002": 3, "synth_lead_synthetic_005": 1}
    assert {each.velocity for each in chosen} == {100}
    one = select_examples(examples, plan(), per_family=1, seed=0)
    assert Counter(each.family for each in one) == {"bass": 3, "synth_lead": 1}
    assert select_examples(examples[::-1], plan(), per_family=1, seed=0) == one[::-1]
    whole = select_examples(examples, plan(), per_family=None, seed=0)
    assert Counter(each.instrument for each in whole) == {**found, "bass_synthetic_000": 1}


def test_further_velocities_are_those_published(nsynth: Path) -> None:
    examples = read_examples(nsynth, "train")
    chosen = select_examples(examples, plan(velocity_notes=2), per_family=1, seed=0)
    found = Counter((each.family, each.velocity) for each in chosen)
    assert found == {("bass", 100): 3, ("bass", 50): 2, ("synth_lead", 100): 1, ("synth_lead", 50): 1}
    assert select_examples(examples[::-1], plan(velocity_notes=2), per_family=1, seed=0) == chosen[::-1]
    none = select_examples(examples, plan(velocity_notes=2, velocities=(51, 127)), per_family=1, seed=0)
    assert {each.velocity for each in none} == {100}


def test_a_family_is_held_out_whole(nsynth: Path, tmp_path: Path) -> None:
    report = collect_nsynth(tmp_path / "notes", nsynth, plan(heldout_families=("bass",)), seed=0, workers=1)
    assert report["families"]["bass"] == {"test": 2, "train": 0, "validation": 0}
    assert report["families"]["synth_lead"]["train"] == 1


def test_the_noteset_of_an_nsynth_folder(nsynth: Path, tmp_path: Path) -> None:
    report = collect_nsynth(
        tmp_path / "notes",
        nsynth,
        plan(),
        seed=0,
        workers=1,
    )
    found = NoteSet.open(tmp_path / "notes")
    assert report["notes"] == len(found) == 12
    assert report["dropped"] == {}
    # Published valid and test share instruments; here none is in two splits, and each keeps all its notes.
    splits = {(note.instrument, note.split) for note in found}
    assert len(splits) == len(found.instruments) == 6
    organs = {split for instrument, split in splits if instrument.startswith("organ")}
    assert organs == {"validation", "test"}
    assert {note.split for note in found if note.family == "bass"} == {"train"}
    for note in found:
        assert note.note_id == f"{note.instrument}-{note.pitch:03d}-100"
        assert note.f0_midi == pytest.approx(note.pitch, abs=0.3)
    assert np.abs(found.float_audio([0])[0, :70_000]).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert np.abs(found.float_audio([0])[0, 74_000:]).max() < 1e-3


def test_folders_that_are_not_nsynth(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no nsynth-train"):
        collect_nsynth(tmp_path / "notes", tmp_path, plan(), seed=0)
    assert not (tmp_path / "notes").exists()
    (tmp_path / "nsynth-train").mkdir()
    table = tmp_path / "nsynth-train" / "examples.json"
    table.write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_examples(tmp_path, "train")
    table.write_text('{"a": {"note_str": "a", "pitch": 60}}')
    with pytest.raises(DataError, match="lacks instrument_str"):
        read_examples(tmp_path, "train")
