"""Real renders: pitch, levels, determinism, and what a failing engine costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from timbrel.notes.dx7 import Operator, Voice, read_sysex_file, to_packed
from timbrel.notes.fm_banks import TEMPLATES, carriers, generate, write_banks
from timbrel.notes.noteset import PEAK
from timbrel.notes.render import RenderedNote, RenderJob, map_jobs, render_all, render_job
from timbrel.notes.selection import distance_db, picture
from timbrel.notes.soundfonts import SoundfontEngine, find_fonts, general_midi_font, list_presets


def sine_voice(**changes: object) -> Voice:
    """Operator 1 alone: a sine at the key's pitch."""
    operators = (Operator(output=99, levels=(99, 99, 99, 0), velocity=3), *[Operator()] * 5)
    return Voice(**{"name": "SINE", "algorithm": 32, "operators": operators, **changes})  # type: ignore[arg-type]


def spectrum_peak_hz(pcm: np.ndarray) -> float:
    windowed = pcm[2400:60_000] / 32768.0 * np.hanning(57_600)
    return float(np.argmax(np.abs(np.fft.rfft(windowed))) * 24_000 / 57_600)


@pytest.mark.parametrize(("key", "hertz"), [(45, 110.0), (69, 440.0), (84, 1046.5)])
def test_a_sine_voice_sounds_at_its_key(key: int, hertz: float) -> None:
    (note,) = render_job(RenderJob(key="sine", notes=((key, 100),), voice=to_packed(sine_voice())))
    assert note.audio is not None
    assert spectrum_peak_hz(note.audio) == pytest.approx(hertz, rel=0.003)
    assert note.f0_midi == pytest.approx(key, abs=0.2)
    assert np.abs(note.audio).max() == round(PEAK * 32767)
    # Held for three seconds, then let go: the release of rate 99 ends at once.
    assert np.abs(note.audio[66_000:71_000]).max() > 20_000
    assert np.abs(note.audio[75_000:]).max() < 100


def test_transposition_is_heard_and_measured() -> None:
    job = RenderJob(key="low", notes=((60, 100),), voice=to_packed(sine_voice(transpose=12)))
    (note,) = render_job(job)
    assert note.f0_midi == pytest.approx(48, abs=0.2)


def test_a_silent_voice_is_told() -> None:
    silent = Voice(name="SILENT", algorithm=1, operators=(Operator(),) * 6)
    (note,) = render_job(RenderJob(key="silent", notes=((60, 100),), voice=to_packed(silent)))
    assert (note.fault, note.audio) == ("silent", None)
    assert np.isnan(note.f0_midi)


def test_a_soundfont_note_has_its_pitch_and_order_does_not_matter() -> None:
    font = general_midi_font()
    pairs = ((60, 100), (48, 100), (72, 60))
    job = RenderJob(key="trumpet", notes=pairs, font=font, program=56)
    first = render_job(job)
    for note, (key, _) in zip(first, pairs, strict=True):
        assert note.f0_midi == pytest.approx(key, abs=0.3)
    second = render_job(RenderJob(key="trumpet", notes=pairs[::-1], font=font, program=56))[::-1]
    assert np.array_equal(audio_of(first), audio_of(second))


def test_velocity_changes_the_timbre_of_our_voices() -> None:
    """Level is out of it: notes are normalised."""
    voices = generate(len(TEMPLATES), seed=5)
    distances = []
    for made in voices:
        soft, hard = audio_of(
            render_job(RenderJob(key="touch", notes=((60, 40), (60, 127)), voice=to_packed(made.voice)))
        )
        distances.append(float(distance_db(picture(soft), picture(hard)[None])[0]))
    assert min(distances) > 0.5
    assert np.median(distances) > 4


def audio_of(notes: tuple[RenderedNote, ...]) -> list[np.ndarray]:
    return [note.audio for note in notes if note.audio is not None]


def test_presets_are_listed() -> None:
    presets = list_presets(general_midi_font())
    melodic = [preset for preset in presets if preset.bank == 0]
    assert [preset.program for preset in melodic] == list(range(128))
    assert melodic[0].name == "Piano 1"
    assert any(preset.bank == 128 for preset in presets)


def test_absent_fonts_are_told(tmp_path: Path) -> None:
    found, absent = find_fonts([f"{tmp_path}/*.sf2", str(general_midi_font())])
    assert found == [general_midi_font()]
    assert absent == [f"{tmp_path}/*.sf2"]


def _hazard(job: RenderJob) -> tuple[RenderedNote, ...]:
    if job.key == "crash":
        os._exit(11)
    if job.key == "hang":
        time.sleep(600)
    if job.key == "raise":
        raise ValueError("an engine's complaint")
    return render_job(job)


def test_a_bad_patch_costs_only_itself() -> None:
    voice = to_packed(sine_voice())
    keys = ["a", "crash", "b", "hang", "raise", "c", "crash", "d"]
    jobs = [RenderJob(key=key, notes=((69, 100),), voice=voice) for key in keys]
    seen: list[int] = []
    outcomes = list(render_all(jobs, workers=2, timeout=8, report=seen.append, work=_hazard))
    assert [outcome.job.key for outcome in outcomes] == keys
    faults = ["", "crashed", "", "timed_out", "failed", "", "crashed", ""]
    assert [outcome.fault for outcome in outcomes] == faults
    assert outcomes[4].detail == "an engine's complaint"
    audio = [outcome.notes[0].audio for outcome in outcomes if not outcome.fault]
    assert len(audio) == 4
    assert all((each == audio[0]).all() for each in audio if each is not None)
    assert seen == list(range(1, 9))


def _square(number: int) -> int:
    return number * number


def test_results_come_in_order() -> None:
    results = map_jobs(range(40), _square, workers=2)
    assert [result.value for result in results] == [number * number for number in range(40)]


def test_the_engine_is_loaded_by_rendering_alone() -> None:
    code = (
        "import sys, timbrel.notes.render, timbrel.notes.dx7, timbrel.notes.library, timbrel.notes.collect;"
        "assert not {'dexed', 'pretty_midi', 'pandas', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_generated_voices_are_seeded_named_and_grow_by_appending() -> None:
    voices = generate(2 * len(TEMPLATES) + 3, seed=9)
    assert voices[: len(TEMPLATES)] == generate(len(TEMPLATES), seed=9)
    assert voices[0].voice != generate(1, seed=10)[0].voice
    assert len({to_packed(each.voice)[:118] for each in voices}) == len(voices)
    assert len({each.family for each in voices}) == 11
    for each in voices:
        assert len(each.voice.name) <= 10
        heard = [each.voice.operators[number - 1] for number in carriers(each.voice.algorithm)]
        loudest = max(heard, key=lambda op: op.output)
        assert loudest.output >= 85


def test_banks_are_files_that_any_dx7_reads(tmp_path: Path) -> None:
    voices = [each.voice for each in generate(40, seed=9)]
    paths = write_banks(voices, tmp_path, stem="mine")
    assert [(path.name, path.stat().st_size) for path in paths] == [
        ("mine-01.syx", 4104),
        ("mine-02.syx", 4104),
    ]
    read = [voice for path in paths for voice in read_sysex_file(path).voices][:40]
    assert [to_packed(voice) for voice in read] == [to_packed(voice) for voice in voices]


def test_carriers_agree_with_the_engine() -> None:
    code = (
        "import dexed; from timbrel.notes.fm_banks import carriers;"
        "assert all(tuple(c + 1 for c in dexed.get_carriers(a)) == carriers(a + 1) for a in range(32))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def play(engine: SoundfontEngine, program: int, key: int) -> np.ndarray:
    return engine.render(bank=0, program=program, key=key, velocity=100, held=0.5, seconds=0.8)


# Tubular bells; piccolo.
@pytest.mark.parametrize(("program", "key"), [(14, 72), (72, 60)])
def test_a_note_begins_in_silence_whatever_sounded_before(program: int, key: int) -> None:
    alone = play(SoundfontEngine(general_midi_font()), program, key)
    used = SoundfontEngine(general_midi_font())
    for before in range(8, 16):
        play(used, before, 48)
    assert np.array_equal(play(used, program, key), alone)
