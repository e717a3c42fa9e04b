"""Synthetic tones: the pitch asked for, the spectrum asked for, the same from the same seed; the corpus of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from timbrel.notes.codec_corpus import collect_tones, training_rows
from timbrel.notes.noteset import Note, NoteSet, NoteSetWriter
from timbrel.notes.synthetic import Tone, Voice, draw_tone, play

SAW = Voice(
    transpose=0.0,
    level=0.0,
    detunes=(0.0,),
    stretch=0.0,
    harmonics=-20.0 * np.log10(np.arange(1, 513)),
    cutoffs=(1e6, 1e6),
    resonance=0.0,
    slope=12.0,
    fade=1.0,
)
PLAIN = Tone(
    voices=(SAW,),
    attack=0.01,
    decay=1.0,
    sustain=0.0,
    release=0.1,
    noise=-120.0,
    noise_slope=0.0,
    vibrato=(5.0, 0.0),
    seed=1,
)


def levels(sound: np.ndarray, hertz: list[float]) -> np.ndarray:
    """dB at each of ``hertz``, relative to the first, over two held seconds."""
    part = sound[12_000:60_000] * np.hanning(48_000)
    spectrum = np.abs(np.fft.rfft(part))
    found = np.array([spectrum[round(each * 2) - 2 : round(each * 2) + 3].max() for each in hertz])
    return 20.0 * np.log10(found / found[0])


def test_a_saw_has_the_levels_of_a_saw() -> None:
    sound = play(PLAIN, 57.0)
    assert levels(sound, [220.0, 440.0, 880.0, 2200.0]) == pytest.approx([0.0, -6.02, -12.04, -20.0], abs=0.1)


def test_a_second_voice_lies_where_it_is_transposed_to() -> None:
    below = replace(SAW, transpose=-12.0, level=-20.0)
    sound = play(replace(PLAIN, voices=(SAW, below)), 57.0)
    # 110 Hz is the lower voice's alone; 330 Hz its third partial.
    assert levels(sound, [110.0, 330.0])[1] == pytest.approx(20.0 * np.log10(1 / 3), abs=0.1)


def test_stretched_partials_follow_the_stiff_string() -> None:
    sound = play(replace(PLAIN, voices=(replace(SAW, stretch=0.01),)), 57.0)
    third = 220.0 * 3 * np.sqrt(1 + 0.01 * 9)
    assert levels(sound, [220.0 * np.sqrt(1.01), third])[1] == pytest.approx(-9.54, abs=0.2)
    assert levels(sound, [220.0 * np.sqrt(1.01), 660.0])[1] < -60.0


def test_no_partial_lies_above_the_band() -> None:
    # A flat spectrum at 6 kHz: its second partial would fold back from 12 kHz.
    sound = play(
        replace(PLAIN, voices=(replace(SAW, harmonics=np.zeros(512)),)), 69.0 + 12 * np.log2(6000 / 440)
    )
    spectrum = np.abs(np.fft.rfft(sound[12_000:60_000] * np.hanning(48_000)))
    spectrum[11_900:12_101] = 0.0
    assert spectrum.max() < 1e-3 * np.abs(np.fft.rfft(sound[12_000:60_000] * np.hanning(48_000))).max()


def test_a_seed_is_an_instrument() -> None:
    one, again, other = draw_tone(3), draw_tone(3), draw_tone(4)
    assert (play(one, 60.0) == play(again, 60.0)).all()
    assert not np.allclose(play(one, 60.0), play(other, 60.0))
    assert all(np.isfinite(play(draw_tone(seed), 21.0)).all() for seed in range(10))


def test_the_corpus_of_tones(tmp_path: Path) -> None:
    report = collect_tones(tmp_path / "tones", tones=2, notes_each=2, pitches=(40, 50))
    assert report == {"instruments": 2, "notes": 4}
    found = NoteSet.open(tmp_path / "tones")
    assert [note.split for note in found] == ["validation", "validation", "train", "train"]
    assert all(40.0 <= note.f0_midi <= 50.0 for note in found)
    assert np.abs(found.audio).max(axis=1).tolist() == [29_204] * 4  # -1 dBFS


def test_no_preset_is_trained_on_that_the_notes_hold_out(tmp_path: Path) -> None:
    def write(folder: Path, rows: list[tuple[str, str, str]]) -> NoteSet:
        with NoteSetWriter(folder) as writer:
            for instrument, source, split in rows:
                note = Note(
                    row=0, note_id=instrument, instrument=instrument, name="", family="organ", source=source,
                    pitch=60, velocity=100, split=split, f0_midi=60.0, f0_confidence=1.0,
                )  # fmt: skip
                writer.add(note, np.ones(96_000, dtype=np.int16))
        return NoteSet.open(folder)

    notes = write(
        tmp_path / "notes",
        [
            ("organ_soundfont_000", "soundfont", "train"),
            ("organ_soundfont_001", "soundfont", "test"),
            ("organ_dx7_000", "dx7", "test"),
        ],
    )
    wide = write(
        tmp_path / "wide",
        [
            ("organ_soundfont_000", "soundfont", "train"),
            ("organ_soundfont_001", "soundfont", "train"),
            ("organ_dx7_000", "dx7", "train"),
            ("organ_soundfont_002", "soundfont", "validation"),
        ],
    )
    assert training_rows(wide, notes).tolist() == [0, 2]
