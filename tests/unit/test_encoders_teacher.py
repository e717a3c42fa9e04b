"""Targets of the teacher, and the examples that they are worked out for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from timbrel.encoders import teacher
from timbrel.encoders.efficientat import EfficientAt
from timbrel.encoders.examples import (
    Example,
    hear,
    read_examples,
    read_pictures,
    with_variants,
    write_examples,
)
from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE, clip
from timbrel.errors import DataError
from timbrel.notes.shaping import Shape

TIME = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * TIME) * np.less(TIME, seconds)).astype(np.float32)


def test_a_clip_ends_with_its_last_sound() -> None:
    sound = np.zeros(CLIP_SAMPLES, np.float32)
    sound[:12_000] = 0.1
    assert len(teacher.without_silence(sound)) == 12_000
    sound[24_000] = 1e-6  # more than 60 dB below
    assert len(teacher.without_silence(sound)) == 12_000
    assert len(teacher.without_silence(np.zeros(CLIP_SAMPLES, np.float32))) == 4_800


def test_targets_keep_cosines_of_equally_weighted_blocks() -> None:
    rng = np.random.default_rng(0)
    # Two blocks of 3 and 5 channels; all that varies has four dimensions, so four components keep everything.
    style = rng.standard_normal((50, 4)) @ rng.standard_normal((4, 16)) + rng.standard_normal(16)
    raw = teacher.RawTarget(style, rng.standard_normal((50, 80)) * 7.0)
    targets = teacher.fit_targets(raw, channels=(3, 5), components=4)
    assert targets.kept == pytest.approx(1.0)
    parts = targets.values[:, :4], targets.values[:, 4:]
    for part in parts:
        assert np.square(part).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    weighted = (style - style.mean(axis=0)) / style.std(axis=0)
    weighted[:, :6] /= np.sqrt(6.0)
    weighted[:, 6:] /= np.sqrt(10.0)
    np.testing.assert_allclose(_cosines(parts[0]), _cosines(weighted), atol=1e-4)


def _cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_variants_are_instruments_of_their_own_with_one_amount_each() -> None:
    names = ["a", "a", "a", "b", "b"]
    made = with_variants(range(5), names, [60.0, 61.0, 62.0, 50.0, 51.0], resampled=2, reshaped=1, seed=3)
    assert [each.instrument for each in made[:5]] == names
    resampled = [each for each in made if each.instrument == "a+resampled"]
    assert len(resampled) == 2
    assert len({each.semitones for each in resampled}) == 1
    assert 2.0 <= abs(resampled[0].semitones) <= 5.0
    assert resampled[0].pitch == 60.0 + resampled[0].row + resampled[0].semitones
    reshaped = [each for each in made if each.instrument.endswith("+reshaped")]
    assert {each.instrument for each in reshaped} == {"a+reshaped", "b+reshaped"}
    assert all(each.shape is not None and each.semitones == 0.0 for each in reshaped)
    assert with_variants(range(5), names, [60.0] * 5, resampled=2, reshaped=1, seed=3)[5].shape is None


def test_a_resampled_example_sounds_so_many_semitones_higher() -> None:
    heard = hear(tone(440.0), Example(0, "a", 69.0, semitones=3.0))
    hertz = np.argmax(np.abs(np.fft.rfft(heard[:24_000])))
    assert hertz == pytest.approx(440.0 * 2 ** (3 / 12), abs=1.0)
    np.testing.assert_array_equal(hear(tone(440.0), Example(0, "a", 69.0)), clip(tone(440.0)))


def test_examples_are_written_and_read_and_torn_ones_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "teacher.pt"
    torch.save(EfficientAt(0.4).state_dict(), file)
    sounds = {0: tone(220.0), 1: tone(330.0, 0.5)}
    examples = [
        Example(0, "x", 57.0),
        Example(1, "y", 64.0),
        Example(1, "y+", 64.0, shape=Shape(low_pass=500.0)),
    ]
    folder = tmp_path / "examples"
    folder.mkdir()
    report = write_examples(
        folder, {"tones": (sounds.__getitem__, examples)}, teacher_file=file, components=2
    )
    assert (report["examples"], report["instruments"], report["by_source"]) == (3, 3, {"tones": 3})
    read = read_examples(folder)
    np.testing.assert_array_equal(read.instrument, [0, 1, 2])
    np.testing.assert_array_equal(read.pitch, [57.0, 64.0, 64.0])
    assert read.target is not None
    assert read.target.shape == (3, 82)
    # The second tone ends after half a second, with nothing behind it.
    assert float(read.power(np.array([1]))[0, :, 40:].max()) < 1e-8
    pictures = read_pictures(folder)
    assert pictures.values.shape == (3, 128, 300)
    # A tone's picture is loudest where its band is, as long as it sounds: 0.5 s are 50 frames.
    assert pictures.heard[:2].tolist() == [200, 50]
    band = int(np.argmax(pictures.values[1, :, 20]))
    edges = 1127.0 * np.log1p(np.array([330.0, 15_000.0]) / 700.0)
    assert band == pytest.approx(edges[0] / edges[1] * 129 - 1, abs=1.0)
    (folder / "log_power.npy").unlink()
    with pytest.raises(DataError, match="run the encoder's pipeline"):
        read_examples(folder)
