"""What a shape does to a sound, measured; and which files count as recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from timbrel.notes.recordings import find_recordings, read_recording
from timbrel.notes.shaping import Shape, apply, draw_shape

RATE = 24_000
TIME = np.arange(2 * RATE) / RATE


def level(sound: np.ndarray, hertz: float) -> float:
    """dB of one partial."""
    return float(20 * np.log10(np.abs(np.mean(sound * np.exp(-2j * np.pi * hertz * TIME))) + 1e-12))


TWO = np.sin(2 * np.pi * 500 * TIME) + np.sin(2 * np.pi * 2_000 * TIME)


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        (Shape(tilt=-3.0), -6.0),
        (Shape(low_pass=1_000.0), -24.0),
        (Shape(high_pass=1_000.0), 24.0),
        (Shape(attack=0.1), 0.0),
    ],
)
def test_filters_change_two_partials_by_what_they_say(shape: Shape, change: float) -> None:
    found = apply(TWO, shape, RATE)
    assert level(found, 2_000) - level(found, 500) == pytest.approx(change, abs=0.1)
    assert np.abs(found).max() == pytest.approx(1.0)


def test_attack_decay_tremolo_and_drive() -> None:
    steady = np.ones(2 * RATE)
    assert apply(steady, Shape(attack=0.2), RATE)[RATE // 10] == pytest.approx(0.5, abs=1e-3)
    decayed = apply(steady, Shape(decay=1.0), RATE)
    assert 20 * np.log10(decayed[RATE] / decayed[0]) == pytest.approx(-60.0, abs=0.1)
    wobbled = apply(steady, Shape(tremolo=(5.0, 0.4)), RATE)
    assert wobbled.min() == pytest.approx(0.6, abs=1e-3)
    driven = apply(np.sin(2 * np.pi * 500 * TIME), Shape(drive=8.0), RATE)
    assert level(driven, 1_500) > level(driven, 500) - 15.0
    np.testing.assert_array_equal(apply(np.zeros(100), Shape(tilt=3.0), RATE), np.zeros(100))


def test_shapes_are_drawn_by_their_generator_and_change_something() -> None:
    drawn = [draw_shape(np.random.default_rng(seed)) for seed in range(50)]
    assert drawn[3] == draw_shape(np.random.default_rng(3))
    assert all(each != Shape() for each in drawn)
    assert len(set(drawn)) == 50


def test_recordings_are_read_as_notes_and_what_is_no_sound_is_left_out(tmp_path: Path) -> None:
    stereo = np.stack([np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000), np.zeros(48_000)], axis=1)
    soundfile.write(tmp_path / "b.wav", stereo, 48_000)
    soundfile.write(tmp_path / "silent.flac", np.zeros(4_800), 48_000)
    (tmp_path / "a.wav").write_text("no sound")
    (tmp_path / "readme.txt").write_text("text")
    files, absent = find_recordings([str(tmp_path), str(tmp_path / "none")])
    assert [path.name for path in files] == ["a.wav", "b.wav", "silent.flac"]
    assert absent == [str(tmp_path / "none")]
    assert read_recording(files[0]) is None
    assert read_recording(files[2]) is None
    note = read_recording(files[1])
    assert note is not None
    assert note.shape == (96_000,)
    np.testing.assert_allclose(
        note[2_000:20_000],
        0.5 * np.sin(2 * np.pi * 440 * np.arange(2_000, 20_000) / 24_000),
        atol=0.01,
    )
    assert not note[24_100:].any()
