"""A small network learns to tell a few synthetic instruments apart, and travels unchanged to disk and to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from timbrel.encoders import storage
from timbrel.encoders.batches import Sampler, Sounds, join, prepare, some_of_each
from timbrel.encoders.export import export
from timbrel.encoders.frontend import SAMPLE_RATE, clip
from timbrel.encoders.mel import log_mel
from timbrel.encoders.timbre import Shape, TimbreEncoder, TimbreNetwork, build
from timbrel.encoders.training import Settings, embed, train_encoder
from timbrel.encoders.validation import Validation
from timbrel.errors import DataError

INSTRUMENTS = 8
PITCHES = (48, 55, 60, 66)
SHAPE = Shape(channels=(8, 8, 16, 16), embedding_size=32, style=12)


def note(instrument: int, pitch: int) -> np.ndarray:
    """Harmonics whose roll-off, parity and decay depend on the instrument."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    hz = 440.0 * 2 ** ((pitch - 69) / 12)
    harmonics = np.arange(1, 20, 1 + instrument % 2)
    partials = np.sin(2 * np.pi * hz * harmonics[:, None] * time) / harmonics[:, None] ** (
        0.5 + instrument / 4
    )
    return (0.2 * partials.sum(axis=0) * np.exp(-time * (instrument % 3) * 4.0)).astype(np.float32)


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
    settings = Settings(
        steps=60,
        batch_instruments=INSTRUMENTS,
        learning_rate=3e-3,
        temperature=0.1,
        scaffold=16,
        readout_weight=1.0,
        near_pitch_share=0.5,
        seed=1,
    )
    train_encoder(
        network,
        sounds,
        settings,
        report=lambda step, metrics: reports.append({"step": step, **metrics}),
        validate=lambda network: {"checked": 1.0},
        device=torch.device("cpu"),
    )
    torch.set_num_threads(threads)
    return network, reports


def test_both_losses_fall_and_validation_is_asked_on_the_way(
    trained: tuple[TimbreNetwork, list[dict[str, float]]],
) -> None:
    losses = [report for report in trained[1] if "stage1_loss" in report]
    assert losses[-1]["stage1_loss"] < 0.75 * losses[0]["stage1_loss"]
    assert losses[-1]["stage2_loss"] < 0.75 * losses[0]["stage2_loss"]
    assert [report["step"] for report in trained[1] if "checked" in report] == [15, 30, 45]


def test_notes_find_their_instrument(trained: tuple[TimbreNetwork, list[dict[str, float]]]) -> None:
    validation = Validation(audio, LABELS, KEYS, np.arange(len(LABELS)), seed=0)
    figures = validation(trained[0])
    assert figures["stage1.recall1"] > 0.5  # 1 in 8 by chance
    assert figures["stage2.recall1"] > 0.5
    assert set(validation.baselines()) == {
        f"baselines.{name}.recall{k}" for name in ("mfcc", "mel") for k in (1, 10)
    }


def test_vectors_have_length_one(
    trained: tuple[TimbreNetwork, list[dict[str, float]]], sounds: Sounds
) -> None:
    stage1, stage2 = embed(trained[0], sounds)
    assert stage1.shape == (len(LABELS), 32)
    assert stage2.shape == (len(LABELS), trained[0].stage2_size) == (len(LABELS), 12 + 80 + 1 + 32)
    np.testing.assert_allclose(np.linalg.norm(stage1, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(stage2, axis=1), 1.0, atol=1e-5)


def test_saved_weights_come_back_and_torn_ones_are_refused(
    trained: tuple[TimbreNetwork, list[dict[str, float]]], tmp_path: Path
) -> None:
    network = trained[0]
    storage.save(network, tmp_path, {"stage1.recall1": 0.5}, {"licence": "CC0-1.0"})
    loaded = storage.load(tmp_path)
    picture = log_mel(torch.rand(2, 80, 120))
    with torch.no_grad():
        for mine, theirs in zip(network(picture), loaded(picture), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-6)
    sidecar = storage.describe(tmp_path)
    assert sidecar["metrics"] == {"stage1.recall1": 0.5}
    assert sidecar["stage2_size"] == network.stage2_size
    assert sidecar["origin"] == {"licence": "CC0-1.0"}
    weights = tmp_path / storage.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match="run the encoder stage again"):
        storage.load(tmp_path)
    (tmp_path / storage.SIDECAR).write_text("{}")
    with pytest.raises(DataError, match="run the encoder stage again"):
        storage.load(tmp_path)


def test_onnx_gives_the_network_s_numbers_for_any_batch(
    trained: tuple[TimbreNetwork, list[dict[str, float]]], tmp_path: Path
) -> None:
    path = tmp_path / "timbre_encoder.onnx"
    assert export(trained[0], path) < 1e-4
    assert __file__.rsplit("/tests/", 1)[0].encode() not in path.read_bytes()  # nothing of this machine
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["audio"]
    assert [value.name for value in session.get_outputs()] == ["stage1", "stage2"]
    for rows in ([0], [3, 9, 17]):
        clips = np.stack([clip(audio(i)) for i in rows])
        with torch.no_grad():
            expected = TimbreEncoder(trained[0])(torch.from_numpy(clips))
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
