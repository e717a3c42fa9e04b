"""Small but real runs of both stages' code: splits, patches, user's banks, drops, determinism."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timbrel.notes.banks import read_user_banks
from timbrel.notes.collect import _Keeper, collect_notes, soundfont_instruments
from timbrel.notes.dx7 import (
    Operator,
    Voice,
    from_packed,
    read_sysex_file,
    to_packed,
    write_bank,
    write_voice,
)
from timbrel.notes.fm_banks import generate
from timbrel.notes.library import Plan, collect_patches
from timbrel.notes.noteset import PEAK, NoteSet, NoteSetWriter
from timbrel.notes.patches import read_patches, render_job
from timbrel.notes.plan import NotePlan
from timbrel.notes.render import render_all
from timbrel.notes.selection import Duplicates, distance_db, picture
from timbrel.notes.soundfonts import general_midi_font

PLAN = Plan(
    library_voices=4,
    library_pitches=(36, 48, 60, 72, 84),
    library_velocity=100,
    training_voices=4,
    training_renders=3,
    training_pitches=(40, 80),
    training_velocities=(40, 127),
    validation_share=0.25,
    pitched_share=0.6,
    duplicate_db=1.0,
)


def notes(folder: Path, **changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "pitches": (48, 60, 72),
        "velocity": 100,
        "velocity_notes": 2,
        "velocities": (25, 127),
        "instruments_per_family": None,
        "heldout_families": (),
        "shares": {"validation": 0.2, "test": 0.2},
    }
    settings: dict[str, Any] = {
        "seed": 1,
        "general_midi": True,
        "soundfonts": ["/nowhere/*.sf2"],
        "max_presets": 6,
        "fm_count": 4,
        "pitched_share": 0.6,
        "duplicate_db": 1.0,
        "workers": 2,
    }
    wanted = NotePlan(**{name: changes.pop(name, value) for name, value in plan.items()})
    return collect_notes(folder, wanted, **{**settings, **changes})


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_notes_are_whole_split_by_instrument_and_the_same_twice(tmp_path: Path) -> None:
    seen: list[int] = []
    report = notes(tmp_path / "one", progress=lambda what, done, total: seen.append(done))
    again = notes(tmp_path / "two", workers=1)
    assert report == again
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert seen == list(range(1, 11))
    found = NoteSet.open(tmp_path / "one")
    assert report["soundfonts_absent"] == 1
    assert report["instruments"] + sum(report["dropped"].values()) == 10
    assert report["instruments"] >= 7
    by_instrument: dict[str, set[str]] = {}
    for note in found:
        by_instrument.setdefault(note.instrument, set()).add(note.split)
        assert note.source in ("soundfont", "dx7")
        assert note.note_id == f"{note.instrument}-{note.pitch:03d}-{note.velocity:03d}"
    assert all(len(splits) == 1 for splits in by_instrument.values())
    assert {split for splits in by_instrument.values() for split in splits} == {"train", "validation", "test"}
    assert len(found.select(velocity=100)) == 3 * len(by_instrument)
    assert Counter(note.pitch for note in found if note.velocity == 100) == dict.fromkeys(
        (48, 60, 72), len(by_instrument)
    )
    close = [abs(note.f0_midi - note.pitch) < 0.5 for note in found]
    assert np.mean(close) > 0.9


def test_velocity_is_heard_in_the_further_notes(tmp_path: Path) -> None:
    report = notes(tmp_path / "data")
    found = NoteSet.open(tmp_path / "data")
    further = [note for note in found if note.velocity != 100]
    # An FM voice has its two; a preset that plays one sample at every velocity adds nothing.
    counts = Counter(note.instrument for note in further)
    voices = {note.instrument for note in found if note.source == "dx7"}
    assert all(counts[voice] == 2 for voice in voices)
    assert report["velocity_notes"]["kept"] == len(further)
    assert report["velocity_notes"]["sounds_as_the_main_one"] >= 4
    assert sum(report["velocity_notes"].values()) == 2 * report["instruments"]
    assert report["notes"] == len(found)
    assert report["softest_note_differs_db"]["dx7"]["median"] > 3
    assert report["softest_note_differs_db"]["soundfont"]["median"] < 0.5
    for note in further:
        assert 25 <= note.velocity <= 127
        assert np.abs(found.audio[note.row]).max() == pytest.approx(PEAK * 32767, abs=1)
        (main,) = found.select(instrument=note.instrument, pitch=note.pitch, velocity=100)
        apart = distance_db(picture(found.audio[note.row]), picture(found.audio[main])[None])[0]
        assert apart >= 0.5


def test_the_cap_counts_what_is_kept(tmp_path: Path) -> None:
    whole = notes(tmp_path / "whole", max_presets=1, fm_count=44, pitches=(60,), velocity_notes=0)
    some = notes(
        tmp_path / "some",
        max_presets=1,
        fm_count=44,
        pitches=(60,),
        velocity_notes=0,
        instruments_per_family=2,
    )
    totals = {family: sum(counts.values()) for family, counts in whole["families"].items()}
    assert {family: sum(counts.values()) for family, counts in some["families"].items()} == {
        family: min(2, total) for family, total in totals.items()
    }
    assert some["instruments_tried"] + some["instruments_beyond_the_cap"] == whole["instruments_tried"] == 45
    assert set(NoteSet.open(tmp_path / "some").instruments) < set(
        NoteSet.open(tmp_path / "whole").instruments
    )


def test_a_family_is_held_out_whole(tmp_path: Path) -> None:
    report = notes(tmp_path, fm_count=22, max_presets=1, pitches=(60,), heldout_families=("reed", "mallet"))
    assert report["families"]["reed"] == {"test": 2, "train": 0, "validation": 0}
    assert report["families"]["mallet"]["train"] == 0
    assert report["families"]["string"]["train"] >= 1


def test_the_same_font_twice_adds_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "other.sf2"
    shutil.copyfile(general_midi_font(), copy)
    report = notes(tmp_path / "data", soundfonts=[str(copy)], fm_count=0, velocity_notes=0)
    assert report["instruments_tried"] == 12
    assert report["soundfonts"] == ["TimGM6mb.sf2", "other.sf2"]
    assert report["instruments"] <= 6
    assert report["dropped"]["duplicate"] == report["instruments"]
    assert report["presets_beyond_the_limit"]["other.sf2"] > 100


def test_bars_and_bells_have_a_pitch_and_knocks_have_none(tmp_path: Path) -> None:
    """A celesta misleads the first look, and its keys are heard all the same; a wood block's are not."""
    plan = NotePlan(
        pitches=(48, 54, 60, 66, 72),
        velocity=100,
        velocity_notes=0,
        velocities=(25, 127),
        instruments_per_family=None,
        heldout_families=(),
        shares={"validation": 0.4, "test": 0.4},
    )
    everything, _ = soundfont_instruments([general_midi_font()], plan, limit=200, seed=1)
    # Soundtrack plays fifths: it repeats at a pitch that does not sound.
    names = ("Celesta", "Kalimba", "Wood Block", "Agogo", "Orchestra Hit", "Soundtrack")
    chosen = [each for each in everything if each.name in names]
    assert len(chosen) == 6
    with NoteSetWriter(tmp_path / "data") as writer:
        keeper = _Keeper(writer, plan, pitched_share=0.6, duplicates=Duplicates(1.0))
        for each, outcome in zip(chosen, render_all([each.job for each in chosen], workers=2), strict=True):
            assert keeper.take(each, outcome) is None
        splits = keeper.split(seed=1)
        assert {each.name for each in keeper.kept} == {"Celesta", "Kalimba"}
        (celesta,) = (each.ident for each in keeper.kept if each.name == "Celesta")
        assert celesta in keeper.report(splits)["pitch_at_second_look"]
        # An F0 estimator does not know it, so nothing that is judged by one is generated for it.
        assert splits[celesta] == "train"
    found = NoteSet.open(tmp_path / "data")
    for row in found.select(instrument=celesta):
        assert found.notes[row].f0_midi == pytest.approx(found.notes[row].pitch, abs=0.6)


def transposed(voice: Voice, semitones: int, name: str) -> Voice:
    return replace(voice, transpose=24 + semitones, name=name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A library with a user's bank: an octave-down voice, a copy, a silent voice, a noise; and a torn file."""
    root = tmp_path_factory.mktemp("patches")
    banks = root / "banks" / "mine"
    banks.mkdir(parents=True)
    own = generate(4, seed=11)
    base = generate(30, seed=99)[14].voice
    mute = (Operator(), Operator(output=99), *[Operator()] * 4)
    # Fixed frequencies: the same sound at every key, hence no constant distance from it.
    fixed = (Operator(output=99, fixed=True, coarse=2, fine=60), *[Operator()] * 5)
    voices = [
        transposed(base, -12, "DEEP BASS"),
        replace(own[1].voice, name="COPY"),
        Voice(name="MUTE", algorithm=1, operators=mute),
        Voice(name="SIREN", algorithm=32, operators=fixed),
    ]
    (banks / "user.syx").write_bytes(write_bank(voices))
    (banks / "single.SYX").write_bytes(write_voice(replace(base, name="BRASS SOLO", transpose=24)))
    (banks / "torn.syx").write_bytes(b"\xf0\x43")
    (banks / "notes.txt").write_text("not a bank")
    report = collect_patches(
        root / "data", PLAN, library_seed=11, training_seed=12, user_banks=root / "banks", workers=2
    )
    return root, report


def test_what_is_kept_and_what_is_dropped_and_why(built: tuple[Path, dict[str, Any]]) -> None:
    root, report = built
    assert report["tried"] == {"library": 4, "training": 4, "user": 5}
    assert report["patches"]["library"] == 6
    assert report["dropped"]["library"] == {"duplicate": 1, "inconsistent": 1, "silent": 1}
    assert report["user_banks"]["files_unreadable"] == 1
    assert report["user_banks"]["empty_voices"] == 28
    assert report["user_banks"]["problems"] == [
        "torn.syx holds no DX7 bank (4,104 bytes) and no DX7 voice (163 bytes)"
    ]
    assert json.loads((root / "data" / "report.json").read_text()) == report


def test_patches_are_filed_under_what_sounds(built: tuple[Path, dict[str, Any]]) -> None:
    root, _ = built
    patches = {patch.name: patch for patch in read_patches(root / "data" / "patches.csv")}
    deep, solo = patches["DEEP BASS"], patches["BRASS SOLO"]
    assert deep.offset_semitones == pytest.approx(-12, abs=0.2)
    assert (deep.family, deep.engine, deep.split, deep.bank) == ("bass", "dx7", "library", "user.syx")
    assert (solo.family, solo.bank) == ("brass", "single.SYX")
    found = NoteSet.open(root / "data")
    for note in found:
        if note.instrument == deep.patch_id:
            assert note.f0_midi == pytest.approx(note.pitch - 12, abs=0.5)
    assert {note.pitch for note in found if note.split == "library"} == set(PLAN.library_pitches)


def test_the_payload_is_the_patch(built: tuple[Path, dict[str, Any]]) -> None:
    root, _ = built
    for patch in read_patches(root / "data" / "patches.csv"):
        assert len(patch.content) == 128
        assert hashlib.sha256(patch.content).hexdigest() == patch.sha256
        assert patch.patch_id == "dx7-" + hashlib.sha256(patch.content[:118]).hexdigest()[:12]
        if patch.bank.startswith(("timbrel", "training")):
            voices = read_sysex_file(root / "data" / "banks" / patch.bank).voices
            assert from_packed(patch.content) in voices


def test_training_voices_are_apart_from_the_library(built: tuple[Path, dict[str, Any]]) -> None:
    root, _ = built
    patches = read_patches(root / "data" / "patches.csv")
    assert len({patch.patch_id for patch in patches}) == len(patches)
    assert {patch.split for patch in patches} == {"train", "validation", "library"}
    found = NoteSet.open(root / "data")
    training = [note for note in found if note.split != "library"]
    assert all(40 <= note.pitch <= 80 and 40 <= note.velocity <= 127 for note in training)
    assert len({note.velocity for note in training}) > 6


def test_a_second_run_gives_the_same_bytes(built: tuple[Path, dict[str, Any]]) -> None:
    root, _ = built
    first = digest(root / "data")
    collect_patches(
        root / "data", PLAN, library_seed=11, training_seed=12, user_banks=root / "banks", workers=1
    )
    assert digest(root / "data") == first
    assert {"notes.csv", "audio.npy", "patches.csv", "report.json", "banks/timbrel-01.syx"} <= set(first)


def test_a_soundfont_of_the_users_joins(tmp_path: Path) -> None:
    banks = tmp_path / "banks"
    banks.mkdir()
    font = banks / "mine.sf2"
    shutil.copyfile(general_midi_font(), font)
    found = read_user_banks(banks)
    assert len(found.patches) >= 128
    assert found.counts["files_sf2"] == 1
    trumpet = next(patch for patch in found.patches if patch.name == "SoloTrumpet")
    assert (trumpet.family, trumpet.engine, trumpet.split) == ("brass", "soundfont", "library")
    assert json.loads(trumpet.content)["program"] == 56
    job = render_job(trumpet, ((60, 100),), fonts=banks)
    assert (job.font, job.program) == (font, 56)
    renamed = banks / "other.sf2"
    font.rename(renamed)
    assert read_user_banks(banks).patches[0].patch_id == found.patches[0].patch_id


def test_generated_voices_in_a_bank_are_valid_dx7(tmp_path: Path) -> None:
    for made in generate(200, seed=1):
        assert from_packed(to_packed(made.voice)) == replace(made.voice, name=made.voice.name.ljust(10))
