"""NoteSet, splits, duplicates, offsets."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from timbrel.errors import ConfigurationError, DataError
from timbrel.notes.families import FAMILIES, family_of_name, family_of_program
from timbrel.notes.noteset import NOTE_SAMPLES, PEAK, Note, NoteSet, NoteSetWriter, quantise
from timbrel.notes.selection import Duplicates, distance_db, picture, sounding_offset
from timbrel.notes.splits import assign_splits


def note(instrument: str, pitch: int, **changes: object) -> Note:
    values: dict[str, object] = {
        "row": 0,
        "note_id": f"{instrument}-{pitch:03d}-100",
        "instrument": instrument,
        "name": "A name, with a comma",
        "family": "organ",
        "source": "dx7",
        "pitch": pitch,
        "velocity": 100,
        "split": "train",
        "f0_midi": pitch + 0.01234,
        "f0_confidence": 0.9,
    }
    return Note(**{**values, **changes})  # type: ignore[arg-type]


def tone(midi: float, partials: int = 6) -> np.ndarray:
    time = np.arange(NOTE_SAMPLES) / 24_000
    frequency = 440.0 * 2 ** ((midi - 69) / 12)
    waves = [np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, partials + 1)]
    return np.sum(waves, axis=0).astype(np.float32) * np.float32(0.1)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with NoteSetWriter(tmp_path / "notes") as writer:
        writer.add(note("organ_dx7_000", 60), tone(60))
        writer.add(note("organ_dx7_000", 62, f0_midi=math.nan, f0_confidence=math.nan), tone(62))
        writer.add(note("organ_dx7_001", 60), np.full(NOTE_SAMPLES, 7, dtype=np.int16))
        writer.set_splits({"organ_dx7_001": "test"})
        writer.report = {"instruments": 2}
        assert not (tmp_path / "notes").exists()
    found = NoteSet.open(tmp_path / "notes")
    assert [each.row for each in found] == [0, 1, 2]
    assert found.instruments == ("organ_dx7_000", "organ_dx7_001")
    assert found.notes[0].name == "A name, with a comma"
    assert found.notes[0].f0_midi == 60.0123
    assert math.isnan(found.notes[1].f0_midi)
    assert found.select(split="test").tolist() == [2]
    assert found.select(instrument="organ_dx7_000", pitch=62).tolist() == [1]
    assert found.select(split=("train", "test")).tolist() == [0, 1, 2]
    assert found.audio.shape == (3, NOTE_SAMPLES)
    assert (found.audio[2] == 7).all()
    peak = np.abs(found.float_audio([0])).max()
    assert peak == pytest.approx(PEAK, abs=1e-4)
    assert found.report == {"instruments": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    with NoteSetWriter(tmp_path / "notes") as writer:
        writer.add(note("organ_dx7_000", 60), tone(60))
    with pytest.raises(KeyboardInterrupt), NoteSetWriter(tmp_path / "notes") as writer:
        raise KeyboardInterrupt
    assert len(NoteSet.open(tmp_path / "notes")) == 1
    with NoteSetWriter(tmp_path / "notes") as writer:
        writer.add(note("organ_dx7_007", 61), tone(61))
    assert NoteSet.open(tmp_path / "notes").instruments == ("organ_dx7_007",)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_faulty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the stage"):
        NoteSet.open(tmp_path)
    with NoteSetWriter(tmp_path / "notes") as writer:
        writer.add(note("organ_dx7_000", 60), tone(60))
        writer.add(note("organ_dx7_000", 61), tone(61))
    table = tmp_path / "notes" / "notes.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:2]))
    with pytest.raises(DataError, match="wants int16"):
        NoteSet.open(tmp_path / "notes")
    table.write_text("".join([lines[0], lines[2], lines[1]]))
    with pytest.raises(DataError, match="out of order"):
        NoteSet.open(tmp_path / "notes")
    table.write_text("".join(lines).replace("pitch", "key", 1))
    with pytest.raises(DataError, match="other columns"):
        NoteSet.open(tmp_path / "notes")


def test_audio_that_is_no_note_is_refused() -> None:
    with pytest.raises(DataError, match="96000"):
        quantise(np.ones(100))
    with pytest.raises(DataError, match="NaN"):
        quantise(np.full(NOTE_SAMPLES, np.nan))
    with pytest.raises(DataError, match="silence"):
        quantise(np.zeros(NOTE_SAMPLES))
    assert np.abs(quantise(np.sin(np.arange(NOTE_SAMPLES) / 10) * 9)).max() == round(PEAK * 32767)


def test_splits_are_disjoint_stratified_and_seeded() -> None:
    families = {f"{family}_dx7_{n:03d}": family for family in FAMILIES for n in range(12)}
    shares = {"validation": 0.1, "test": 0.1}
    first = assign_splits(families, shares, seed=3)
    assert first == assign_splits(dict(reversed(families.items())), shares, seed=3)
    assert first != assign_splits(families, shares, seed=4)
    assert first.keys() == families.keys()
    counts = Counter(first.values())
    assert counts["validation"] == counts["test"] == 13
    assert counts["train"] == len(families) - 26
    for family in FAMILIES:
        of_family = Counter(split for name, split in first.items() if families[name] == family)
        assert of_family["train"] >= 8
        assert min(of_family["validation"], of_family["test"]) >= 1


def test_small_sets_still_fill_every_split() -> None:
    families = {f"{family}_0": family for family in FAMILIES[:4]} | {"bass_1": "bass", "bass_2": "bass"}
    splits = assign_splits(families, {"validation": 0.1, "test": 0.1}, seed=1)
    assert Counter(splits.values()) == {"train": 4, "validation": 1, "test": 1}
    assert {families[name] for name, split in splits.items() if split == "train"} == set(FAMILIES[:4])


def test_shares_that_leave_no_training_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave something"):
        assign_splits({"a": "bass"}, {"validation": 0.5, "test": 0.5}, seed=1)


def test_an_offset_is_found_when_most_renders_agree() -> None:
    keys = [36, 48, 60, 72, 84]
    assert sounding_offset(keys, [24.1, 36, 47.9, 60, 72], share=0.6) == pytest.approx(-12)
    assert sounding_offset(keys, [36, 48, 60, 60, 84.2], share=0.6) == pytest.approx(0)  # one octave slip
    assert sounding_offset(keys, [36, 48.7, 61, 74, 80], share=0.6) is None
    assert sounding_offset(keys, [60, 60, 60, 60, 60], share=0.6) is None
    assert sounding_offset(keys, [math.nan, math.nan, math.nan, 72, 84], share=0.6) is None
    assert sounding_offset(keys, [math.nan] * 5, share=0.0) is None


def test_duplicates_are_told_by_ear() -> None:
    plain = quantise(tone(60))
    noise = np.random.default_rng(0).normal(size=NOTE_SAMPLES)
    duplicates = Duplicates(1.0)
    assert duplicates.check("plain", [plain]) is None
    assert duplicates.check("same", [plain]) == "plain"
    # A shifted phase changes every sample and nothing that is heard.
    assert duplicates.check("shifted", [quantise(np.roll(tone(60), 37))]) == "plain"
    assert duplicates.check("hissing", [quantise(tone(60) + 0.02 * noise)]) is None
    assert duplicates.check("bright", [quantise(tone(60, partials=20))]) is None
    assert duplicates.check("octave", [quantise(tone(72))]) is None
    nearest = duplicates.nearest()
    assert len(nearest) == 4
    assert nearest.min() > 1.0


def test_distance_is_the_level_difference() -> None:
    image = picture(quantise(tone(60)))
    assert image.shape == (24, 40)
    assert image.max() == pytest.approx(60)
    assert distance_db(image, image[None]).tolist() == [0.0]
    quieter = np.clip(image - 3, 0, None)
    assert distance_db(image, quieter[None])[0] == pytest.approx(3, abs=0.4)


def test_families_of_programs_and_names() -> None:
    expected = {0: "keyboard", 9: "mallet", 19: "organ", 22: "reed", 25: "guitar", 33: "bass", 40: "string"}
    expected |= {47: "mallet", 53: "vocal", 57: "brass", 65: "reed", 73: "flute", 81: "synth_lead", 127: None}
    assert {program: family_of_program(program) for program in expected} == expected
    named = {"E.PIANO 1": "keyboard", "BRASS   2": "brass", "STRINGS 1": "string", "TUB BELLS": "mallet"}
    named |= {
        "BASS    1": "bass",
        "FLUTE   1": "flute",
        "CLARINET": "reed",
        "E.ORGAN 1": "organ",
        "???": None,
    }
    named |= {"PICCOLO": "flute", "HARPSICH 1": "keyboard", "SITAR": "guitar", "VOICE  1": "vocal"}
    assert {name: family_of_name(name) for name in named} == named
