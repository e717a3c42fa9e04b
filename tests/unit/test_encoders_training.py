"""A small network learns to tell a few synthetic instruments apart, and travels unchanged to disk and to ONNX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from timbrel.encoders import storage
from timbrel.encoders.batches import Sampler, Sounds, join, prepare, some_of_each
from timbrel.encoders.export import export
from timbrel.encoders.frontend import SAMPLE_RATE, clip
from timbrel.encoders.style_network import StyleNetwork
from timbrel.encoders.timbre import Shape, TimbreEncoder, TimbreNetwork, build
from timbrel.encoders.training import Settings, train_encoder
from timbrel.encoders.validation import Validation
from timbrel.errors import DataError

INSTRUMENTS = 8
PITCHES = (48, 55, 60, 66)
SHAPE = Shape(channels=(8, 8, 16, 16), embedding_size=32)


def note(instrument: int, pitch: int) -> np.ndarray:
    """Harmonics whose roll-off, parity and decay depend on the instrument."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    hz = 440.0 * 2 ** ((pitch - 69) / 12)
    harmonics = np.arange(1, 20, 1 + instrument % 2)
    partials = np.sin(2 * np.pi * hz * harmonics[:, None] * time) / harmonics[:, None] ** (
        0.5 + instrument / 4
    )
    return (0.2 * partials.sum(axis=0) * np.exp(-time * (instrument % 3) * 4.0)).astype(np.float32)


SETTINGS = Settings(
    steps=60,
    batch_instruments=INSTRUMENTS,
    learning_rate=3e-3,
    temperature=0.1,
    scaffold=16,
    scaffold_weight=1.0,
    near_pitch_share=0.5,
    seed=1,
)

LABELS = np.repeat([f"i{k}" for k in range(INSTRUMENTS)], len(PITCHES))
KEYS = np.tile(np.array(PITCHES, np.float64), INSTRUMENTS)


def audio(i: int) -> np.ndarray:
    return note(i // len(PITCHES), PITCHES[i % len(PITCHES)])


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    return prepare(audio, LABELS, KEYS)


@pytest.fixture(scope="module")
def trained(sounds: Sounds) -> tuple[TimbreNetwork, list[dict[str, float]]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network only waits for a second one
    torch.manual_seed(0)
    network = build(SHAPE)
    reports: list[dict[str, float]] = []
    train_encoder(
        network,
        sounds,
        SETTINGS,
        report=lambda step, metrics: reports.append({"step": step, **metrics}),
        validate=lambda network: {"checked": 1.0},
        device=torch.device("cpu"),
    )
    torch.set_num_threads(threads)
    return network, reports


def test_the_loss_falls_and_validation_is_asked_on_the_way(
    trained: tuple[TimbreNetwork, list[dict[str, float]]],
) -> None:
    losses = [report for report in trained[1] if "stage1_loss" in report]
    assert losses[-1]["stage1_loss"] < 0.75 * losses[0]["stage1_loss"]
    assert [report["step"] for report in trained[1] if "checked" in report] == [15, 30, 45]


def test_notes_find_their_instrument(trained: tuple[TimbreNetwork, list[dict[str, float]]]) -> None:
    validation = Validation(audio, LABELS, KEYS, np.arange(len(LABELS)), seed=0)
    figures = validation(trained[0])
    assert figures["stage1.recall1"] > 0.5  # 1 in 8 by chance
    assert set(validation.baselines()) == {
        f"baselines.{name}.recall{k}" for name in ("mfcc", "mel") for k in (1, 10)
    }


def test_a_teacher_s_word_is_learnt_beside_the_contrast(sounds: Sounds) -> None:
    target = (np.arange(len(LABELS))[:, None] % 4 - 1.5).astype(np.float32) * np.float32([1.0, -0.5])
    torch.manual_seed(0)
    network = build(SHAPE)
    reports: list[dict[str, float]] = []
    train_encoder(
        network,
        replace(sounds, target=target),
        replace(SETTINGS, steps=75),
        report=lambda step, metrics: reports.append(metrics),
        validate=lambda network: {},
        device=torch.device("cpu"),
    )
    told = [each["scaffold_loss"] for each in reports if "scaffold_loss" in each]
    # Saying nothing would cost the targets' mean square length.
    assert told[0] == pytest.approx(np.square(target).sum(axis=1).mean(), rel=0.5)
    assert told[-1] < 0.5 * told[0]


@pytest.fixture(scope="module", params=["with style", "without"])
def encoder(
    request: pytest.FixtureRequest, trained: tuple[TimbreNetwork, list[dict[str, float]]]
) -> TimbreEncoder:
    torch.manual_seed(2)
    return TimbreEncoder(trained[0], StyleNetwork(12) if request.param == "with style" else None).eval()


def test_vectors_have_length_one(encoder: TimbreEncoder) -> None:
    clips = torch.from_numpy(np.stack([clip(audio(i)) for i in (0, 9)]))
    with torch.no_grad():
        stage1, stage2 = encoder(clips)
        like = stage1 if encoder.style is None else encoder.style(clips)
    assert stage1.shape == (2, 32)
    assert stage2.shape == (2, encoder.stage2_size) == (2, 12 if encoder.style else 32)
    np.testing.assert_allclose(np.linalg.norm(stage1, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(stage2, like / np.linalg.norm(like, axis=1, keepdims=True), atol=1e-5)


def test_saved_weights_come_back_and_torn_ones_are_refused(encoder: TimbreEncoder, tmp_path: Path) -> None:
    storage.save(encoder.network, tmp_path, {"stage1.recall1": 0.5}, {"licence": "CC0-1.0"})
    if encoder.style is not None:
        storage.save_style(encoder.style, tmp_path, {"style_unexplained": 0.1}, {"licence": "CC0-1.0"})
        assert storage.describe_style(tmp_path)["size"] == 12
    loaded = storage.load(tmp_path)
    clips = torch.from_numpy(np.stack([clip(audio(i)) for i in (0, 9)]))
    with torch.no_grad():
        for mine, theirs in zip(encoder(clips), loaded(clips), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-6)
    sidecar = storage.describe(tmp_path)
    assert sidecar["metrics"] == {"stage1.recall1": 0.5}
    assert sidecar["origin"] == {"licence": "CC0-1.0"}
    weights = tmp_path / (storage.STYLE_WEIGHTS if encoder.style else storage.WEIGHTS)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match="run the encoder stage again"):
        storage.load(tmp_path)
    (tmp_path / storage.SIDECAR).write_text("{}")
    with pytest.raises(DataError, match="run the encoder stage again"):
        storage.load(tmp_path)


def test_onnx_gives_the_network_s_numbers_for_any_batch(encoder: TimbreEncoder, tmp_path: Path) -> None:
    path = tmp_path / "timbre_encoder.onnx"
    assert export(encoder, path) < 1e-4
    assert __file__.rsplit("/tests/", 1)[0].encode() not in path.read_bytes()  # nothing of this machine
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["audio"]
    assert [value.name for value in session.get_outputs()] == ["stage1", "stage2"]
    for rows in ([0], [3, 9, 17]):
        clips = np.stack([clip(audio(i)) for i in rows])
        with torch.no_grad():
            expected = encoder(torch.from_numpy(clips))
        found = session.run(None, {"audio": clips})
        np.testing.assert_allclose(found[0], expected[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(found[1], expected[1].numpy(), atol=1e-4)


def test_prepared_powers_are_those_of_the_clip(sounds: Sounds) -> None:
    from timbrel.encoders.filterbank import power_mel

    expected = power_mel(clip(audio(5))[None])[0].T
    found = sounds.power(np.array([5]))[0].numpy()
    loud = expected > 1e-5
    np.testing.assert_allclose(found[loud], expected[loud], rtol=0.02)  # float16 logarithms


def test_resampled_instruments_sound_higher_or_lower_by_one_ratio_each() -> None:
    moved = prepare(audio, LABELS, KEYS, resampled=True, seed=4)
    shift = (moved.pitch - KEYS).reshape(INSTRUMENTS, len(PITCHES))
    np.testing.assert_allclose(shift, np.repeat(shift[:, :1], len(PITCHES), axis=1))
    assert np.all((np.abs(shift) >= 2.5) & (np.abs(shift) <= 5.0))
    # The fundamental of a note at 66 (370 Hz) moves into another band, in the direction of the shift.
    row = PITCHES.index(66)
    original = prepare(audio, LABELS, KEYS).power(np.array([row]))[0].mean(dim=1).argmax()
    resampled = moved.power(np.array([row]))[0].mean(dim=1).argmax()
    assert (resampled > original) == (shift[0, 0] > 0)


def test_joined_sets_keep_their_instruments_apart(sounds: Sounds) -> None:
    both = join([sounds, sounds])
    assert both.instrument.max() == 2 * INSTRUMENTS - 1
    assert not set(both.instrument[: len(LABELS)]) & set(both.instrument[len(LABELS) :])


def test_a_batch_pairs_different_notes_of_each_instrument(sounds: Sounds) -> None:
    sampler = Sampler(sounds, size=6, near_pitch_share=0.5)
    for seed in range(20):
        rows = sampler.draw(np.random.default_rng(seed))
        first, second = rows[:6], rows[6:]
        np.testing.assert_array_equal(sounds.instrument[first], sounds.instrument[second])
        assert len(set(sounds.instrument[first].tolist())) == 6
        assert np.all(first != second)
        assert np.ptp(sounds.pitch[first[:3]]) <= 2.0


def test_some_of_each_takes_at_most_that_many() -> None:
    names = np.array(["a"] * 5 + ["b"] * 2 + ["a"] * 3)
    chosen = some_of_each(names, 3, seed=0)
    assert sorted(names[chosen].tolist()) == ["a", "a", "a", "b", "b"]
    assert np.all(np.diff(chosen) > 0)
