"""Engines that nothing is trained on: patches by seed, banks as written, notes in tune; and the host of plugins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from timbrel.errors import DataError
from timbrel.notes.dssi import DssiSynth
from timbrel.notes.unseen_engines import PLUGINS, Patch, patches, read_amsynth_bank, render_unseen
from timbrel.pitch.estimate import estimate


def installed(engine: str) -> Path:
    """The plugin of ``engine``; without it the test is skipped."""
    if not PLUGINS[engine].is_file():
        pytest.skip(f"no Debian package {engine} here")
    return PLUGINS[engine]


def heard(audio: np.ndarray) -> float:
    return estimate(audio.astype(np.float32) / 32_768, 24_000).midi


def test_vital_plays_in_tune_and_the_same_twice() -> None:
    plain = Patch(engine="vital", name="init", keys=(52, 64), controls={"osc_1_random_phase": 0.0})
    notes = render_unseen([plain, plain], workers=1)
    assert [note.key for note in notes] == [52, 64, 52, 64]
    assert [heard(note.audio) for note in notes[:2]] == pytest.approx([52.0, 64.0], abs=0.1)
    assert (notes[0].audio == notes[2].audio).all()
    assert np.abs(notes[0].audio).max() == 29_204  # -1 dBFS
    # Held for 3 s, then released.
    assert np.abs(notes[0].audio[-6_000:]).max() < 0.01 * np.abs(notes[0].audio[48_000:72_000]).max()


def test_patches_are_drawn_by_the_seed_and_play_every_key() -> None:
    first, again, other = (patches("vital", 7, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted({key for patch in first for key in patch.keys}) == list(range(48, 73))


def test_a_silent_patch_is_left_out_whole() -> None:
    silent = Patch(engine="vital", name="silent", keys=(52, 64), controls={"osc_1_on": 0.0})
    assert render_unseen([silent], workers=1) == []


def test_an_amsynth_bank_is_read_as_written(tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    bank.write_text(
        "amSynth\n<preset> <name> Warm Pad\n<parameter> amp_attack 0.5\n<parameter> filter_cutoff -0.25\n"
        "<preset> <name> Lead\n<parameter> osc_mix 1\nEOF\n"
    )
    assert read_amsynth_bank(bank) == [
        ("Warm Pad", {"amp_attack": 0.5, "filter_cutoff": -0.25}),
        ("Lead", {"osc_mix": 1.0}),
    ]
    bank.write_text("something else\n")
    with pytest.raises(DataError, match="not a bank of amsynth"):
        read_amsynth_bank(bank)


def test_amsynth_obeys_its_controls() -> None:
    synth = DssiSynth(installed("amsynth"))
    assert synth.get("filter_cutoff") == 1.5  # what the plugin's own hint asks for
    synth.set("amp_release", 0.0)
    low = synth.play(key=57, velocity=100, held=0.8, seconds=1.0)
    assert low.shape == (48_000,)
    assert estimate(low, 48_000).midi == pytest.approx(57.0, abs=0.1)
    synth.set("osc2_range", 1.0)  # the second oscillator an octave up, alone
    synth.set("osc_mix", 1.0)
    assert estimate(synth.play(key=57, velocity=100, held=0.8, seconds=1.0), 48_000).midi == pytest.approx(
        69.0, abs=0.1
    )
    synth.close()


def test_whysynth_plays_its_programs() -> None:
    synth = DssiSynth(installed("whysynth"))
    programs = synth.programs()
    assert programs[0] == (0, 0, "New String Thingy")
    synth.close()
    organ = next(program for program in programs if program[2] == "Glass Organ 2")
    notes = render_unseen(
        [Patch(engine="whysynth", name=organ[2], keys=(48, 60, 72), program=organ[:2])], workers=1
    )
    offsets = [heard(note.audio) - note.key for note in notes]
    assert len(offsets) == 3
    assert max(abs(offset - round(offsets[0] / 12) * 12) for offset in offsets) < 0.5


def test_what_is_no_plugin_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.so is not a DSSI plugin"):
        DssiSynth(tmp_path / "a.so")


def test_velocities_are_played_and_told() -> None:
    plain = Patch(
        engine="vital",
        name="init",
        keys=(52, 64),
        controls={"osc_1_random_phase": 0.0, "filter_1_on": 1.0, "filter_1_cutoff": 60.0},
        modulations=(("velocity", "filter_1_cutoff", 0.4),),
    )
    notes = render_unseen([plain], velocities=(40, 127), workers=1)
    assert [(note.key, note.velocity) for note in notes] == [(52, 40), (52, 127), (64, 40), (64, 127)]
    soft, hard = (np.abs(np.fft.rfft(note.audio[24_000:48_000].astype(float))) for note in notes[:2])
    assert hard[2_000:].sum() / hard.sum() > 2 * soft[2_000:].sum() / soft.sum()
