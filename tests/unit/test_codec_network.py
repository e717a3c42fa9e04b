"""The trained half: a PCA to start from, embeddings of unit spread, training that helps, files that are checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from timbrel.codec.baselines import FullMagnitudeCodec, MelCodec
from timbrel.codec.emphasis import by_ear
from timbrel.codec.evaluate import evaluate
from timbrel.codec.export import export
from timbrel.codec.in_process import TorchModels
from timbrel.codec.network import DECIBEL_SCALE, CodecConfig, MagnitudeCodec
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.codec.spectrum import BINS, log_magnitude, log_spectral_distance
from timbrel.codec.storage import load_codec, save_codec
from timbrel.codec.train import (
    CodecTraining,
    Notes,
    draw_frames,
    learning_rate_share,
    losses,
    train_codec,
    validation_losses,
)
from timbrel.errors import DataError


def bank(instruments: int = 6, *, first: int = 0, samples: int = 19_200) -> np.ndarray:
    """int16 [instruments * 5, samples]: harmonic tones, gliding up five semitones, faded at both ends.

    The glide is what makes it hard: no 128-d linear code holds partials that move through all bins.
    """
    time = np.arange(samples) / 24_000
    notes = []
    for i in range(first, first + instruments):
        for pitch in (48, 54, 60, 66, 72):
            hz = 440 * 2 ** ((pitch - 69 + 5 * time / time[-1]) / 12)
            turns = np.cumsum(hz) / 24_000
            sound = sum(np.sin(2 * np.pi * n * turns) * n ** -(1 + 0.2 * i) for n in range(1, 20))
            sound *= np.minimum(1.0, np.minimum(time, time[::-1]) / 0.04)
            notes.append(sound / np.abs(sound).max() * 0.89 * 32_767)
    return np.stack(notes).astype(np.int16)


@pytest.fixture(scope="module")
def notes() -> Notes:
    audio = bank()
    return Notes(audio, np.arange(len(audio)))


@pytest.fixture(scope="module")
def trained(notes: Notes) -> tuple[MagnitudeCodec, list[tuple[int, dict[str, float]]]]:
    reports: list[tuple[int, dict[str, float]]] = []
    settings = CodecTraining(
        hidden=128, steps=80, batch_frames=128, learning_rate=5e-4, pca_frames=1_000, seed=3
    )
    network = train_codec(
        [notes],
        settings,
        report=lambda step, metrics: reports.append((step, metrics)),
        validate=lambda current: validation_losses(current, [notes], seed=9, count=200),
        report_every=8,
    )
    return network, reports


def test_the_linear_path_starts_as_the_best_projection(notes: Notes) -> None:
    frames = draw_frames([notes], 400, np.random.default_rng(0))
    network = MagnitudeCodec(CodecConfig(hidden=16))
    network.start_from_pca(frames, seed=1)
    with torch.no_grad():
        decoded = network.spectrum(network.latent(torch.from_numpy(frames))).numpy()
    centred = frames - frames.mean(axis=0)
    singular = np.linalg.svd(centred.astype(np.float64), compute_uv=False)
    best = (singular[128:] ** 2).sum()  # Eckart and Young: no 128-d linear code does better
    assert ((decoded - frames) ** 2).sum() == pytest.approx(best, rel=1e-2, abs=1.0)


def test_embeddings_have_mean_0_and_variance_1(trained: tuple[MagnitudeCodec, object], notes: Notes) -> None:
    network, _ = trained
    frames = torch.from_numpy(draw_frames([notes], 2_000, np.random.default_rng(1)))
    with torch.no_grad():
        embedding = network.encode(frames)
    assert embedding.mean(dim=0).abs().max() < 0.2
    assert embedding.std(dim=0).sub(1.0).abs().max() < 0.2


def test_training_brings_the_loss_down(
    trained: tuple[MagnitudeCodec, list[tuple[int, dict[str, float]]]],
) -> None:
    _, reports = trained
    assert [step for step, _ in reports] == list(range(0, 81, 8))
    # The loss is taken with noise on the embedding, which a PCA cannot learn to withstand.
    assert reports[-1][1]["loss"] < 0.95 * reports[1][1]["loss"]
    assert set(reports[-1][1]) >= {"loss", "lsd", "partials", "slopes", "learning_rate"}


def test_a_resumed_training_equals_one_that_ran_through(notes: Notes, tmp_path: Path) -> None:
    settings = CodecTraining(hidden=16, steps=6, batch_frames=32, pca_frames=300, seed=5)
    through = train_codec([notes], settings, report=lambda *_: None)

    class Cut(Exception):
        pass

    def cut_at_4(step: int, _: dict[str, float]) -> None:
        if step == 4:
            raise Cut

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Cut):
        train_codec(
            [notes], settings, report=cut_at_4, report_every=1, checkpoint=checkpoint, checkpoint_seconds=0.0
        )
    assert checkpoint.exists()
    resumed = train_codec([notes], settings, report=lambda *_: None, checkpoint=checkpoint)
    for (name, one), other in zip(through.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)


def test_losses_by_hand() -> None:
    """Two bins at 0 dB and -40 dB weigh 10 : 1, but for the ear, which tells the lower a little better apart; errors
    are 1 dB and 3 dB."""
    density = np.array([1.0, 1.0 / (1.0 + 4.37e-3 * 24_000 / 2_048)])
    low, high = 0.2 + 0.8 * density / density.mean()
    assert (low, high) == pytest.approx((1.02, 0.98), abs=1e-3)
    terms = losses(torch.tensor([[0.0, -40.0]]), torch.tensor([[1.0, -37.0]]))
    assert terms["lsd"].item() == pytest.approx(np.sqrt((1.0 + 9.0) / 2), abs=1e-3)
    assert terms["heard"].item() == pytest.approx(np.sqrt((1.0 * low + 9.0 * high) / 2), abs=1e-3)
    parts = 10.0 * low + high
    assert terms["partials"].item() == pytest.approx((10.0 * low + 3.0 * high) / parts, abs=1e-4)
    assert terms["slopes"].item() == pytest.approx(2.0 * high / parts, abs=1e-4)
    # They lie within 190 Hz of each other, so the loud one is the measure of the weak one.
    assert terms["peaks"].item() == pytest.approx((10.0 * low + 3.0 * high) / parts, abs=1e-4)


def test_the_ear_counts_low_bins_most() -> None:
    """At 1 kHz the band is 132.6 Hz wide, at 8 kHz 888 Hz (Glasberg and Moore 1990)."""
    weight = by_ear(BINS).double()
    assert weight.mean().item() == pytest.approx(1.0, abs=1e-6)
    one, eight = (weight[round(hertz * 2_048 / 24_000)].item() - 0.2 for hertz in (1_000, 8_000))
    assert one / eight == pytest.approx(888.2 / 132.6, rel=0.01)


def test_a_new_correction_changes_nothing_and_training_makes_it_help(
    trained: tuple[MagnitudeCodec, object], notes: Notes
) -> None:
    network, _ = trained
    frames = torch.from_numpy(draw_frames([notes], 300, np.random.default_rng(4)))
    with torch.no_grad():
        for latent in network.with_corrections(2).latents(frames):
            torch.testing.assert_close(latent, network.latent(frames), rtol=0, atol=0)
    rough = network.with_corrections(0)
    for parameter in rough.analysis_residual.parameters():
        torch.nn.init.zeros_(parameter)
    settings = CodecTraining(
        hidden=128,
        corrections=2,
        steps=100,
        batch_frames=64,
        learning_rate=2e-3,
        latent_noise=0.0,
        pca_frames=1_000,
        seed=4,
    )
    corrected = train_codec([notes], settings, report=lambda *_: None, start=rough)
    assert network.config.corrections == 0
    with torch.no_grad():
        errors = [
            losses(frames, corrected.spectrum(latent))["partials"].item()
            for latent in corrected.latents(frames)
        ]
    assert errors[2] < errors[1] < 0.95 * errors[0]


def test_corrections_follow_the_gradient_of_the_decoder(trained: tuple[MagnitudeCodec, object]) -> None:
    network, _ = trained
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(5, 128, generator=generator, dtype=torch.float64).requires_grad_(True)
    x, weight = (torch.rand(5, BINS, generator=generator, dtype=torch.float64) for _ in range(2))
    double = network.with_corrections(1).double()
    decoded = (double.spectrum(latent) - double.mean) / DECIBEL_SCALE
    (expected,) = torch.autograd.grad(-0.5 * (weight * (x - decoded).square()).sum(), latent)
    torch.testing.assert_close(double._gradient(x, latent, weight), expected, rtol=1e-6, atol=1e-9)


def test_rounded_weights_are_stored_in_half_the_space_and_lose_nothing(
    trained: tuple[MagnitudeCodec, object], tmp_path: Path
) -> None:
    network = trained[0].with_corrections(1)
    save_codec(network, tmp_path / "whole", {})
    network.round_weights()
    save_codec(network, tmp_path / "half", {})
    whole, half = ((tmp_path / name / "codec.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < 0.54 * whole  # statistics, and the names, keep their size
    for (name, one), other in zip(
        network.state_dict().items(), load_codec(tmp_path / "half").state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)


def test_a_weak_partial_counts_as_much_as_a_loud_one_far_from_it() -> None:
    target = torch.full((1, 60), -90.0)
    target[0, 5], target[0, 55] = 0.0, -60.0
    decoded = target.clone()
    decoded[0, 5] += 1.0
    decoded[0, 55] += 3.0
    decoded[0, 30] += 50.0  # below the sounding level: for the other terms to judge
    low, high = by_ear(60)[[5, 55]].tolist()
    expected = (low * 1.0 + high * 3.0) / (low + high)
    assert losses(target, decoded)["peaks"].item() == pytest.approx(expected, abs=1e-4)


def test_the_learning_rate_rises_and_falls() -> None:
    assert learning_rate_share(0, 1_000) == pytest.approx(0.01, rel=1e-3)
    assert learning_rate_share(500, 1_000) == pytest.approx(0.5, rel=1e-3)
    assert learning_rate_share(999, 1_000) < 1e-4


def test_drawn_frames_are_windows_of_their_notes() -> None:
    """A note that is a steady sine shows that sine wherever the window falls inside it."""
    hz = 40 * 24_000 / 2048
    audio = (np.sin(2 * np.pi * hz * np.arange(24_000) / 24_000) * 32_767).astype(np.int16)[None]
    frames = draw_frames([Notes(audio, np.array([0]))], 50, np.random.default_rng(2))
    whole = frames[:, 40] > -0.01
    assert whole.mean() > 0.8
    np.testing.assert_allclose(frames[whole, 40], 0.0, atol=0.01)


def test_no_notes_is_an_error() -> None:
    with pytest.raises(DataError, match="no note"):
        train_codec([], CodecTraining(), report=lambda *_: None)


def test_saved_codecs_come_back_and_torn_ones_do_not(
    trained: tuple[MagnitudeCodec, object], tmp_path: Path
) -> None:
    network, _ = trained
    save_codec(network, tmp_path, {"why": "test"})
    frames = torch.rand(2, 5, 1025) * -90
    with torch.no_grad():
        torch.testing.assert_close(
            load_codec(tmp_path).encode(frames), network.encode(frames), rtol=0, atol=0
        )
    description = json.loads((tmp_path / "codec.json").read_text())
    assert description["record"] == {"why": "test"}
    np.testing.assert_allclose(description["latent_scale"], network.latent_scale.numpy(), rtol=1e-6)

    weights = tmp_path / "codec.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="not the file"):
        load_codec(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match="missing"):
        load_codec(tmp_path)


@pytest.mark.parametrize("corrections", [0, 2])
def test_onnx_equals_torch_at_any_batch_and_length(
    trained: tuple[MagnitudeCodec, object], tmp_path: Path, corrections: int
) -> None:
    network = trained[0].with_corrections(corrections)
    torch.manual_seed(2)
    for parameter in network.corrections.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    save_codec(network, tmp_path / "codec", {})
    encoder_path, decoder_path = export(tmp_path / "codec", tmp_path / "models")
    assert (encoder_path.name, decoder_path.name) == ("codec_encoder.onnx", "codec_decoder.onnx")
    encoder, decoder = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (encoder_path, decoder_path)
    )
    models = TorchModels(network)
    rng = np.random.default_rng(4)
    for batch, frames in ((1, 300), (3, 1), (2, 17)):
        spectra = {"log_magnitude": rng.uniform(-90, 0, (batch, frames, 1025)).astype(np.float32)}
        embedding = encoder.run(["embedding"], spectra)[0]
        np.testing.assert_allclose(embedding, models.run("codec_encoder", spectra)["embedding"], atol=1e-4)
        given = {"embedding": rng.standard_normal((batch, frames, 128)).astype(np.float32)}
        decoded = decoder.run(["log_magnitude"], given)[0]
        np.testing.assert_allclose(decoded, models.run("codec_decoder", given)["log_magnitude"], atol=1e-4)


def test_exported_weights_that_fit_are_kept_in_half_precision(
    trained: tuple[MagnitudeCodec, object], tmp_path: Path
) -> None:
    network = trained[0].with_corrections(1)
    sizes, found = [], []
    spectra = {"log_magnitude": np.random.default_rng(6).uniform(-90, 0, (1, 9, BINS)).astype(np.float32)}
    for name in ("whole", "half"):
        if name == "half":
            network.round_weights()
        save_codec(network, tmp_path / name, {})
        encoder, _ = export(tmp_path / name, tmp_path / name)
        sizes.append(encoder.stat().st_size)
        session = onnxruntime.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])
        found.append(session.run(None, spectra)[0])
    assert sizes[1] < 0.55 * sizes[0]
    expected = TorchModels(network).run("codec_encoder", spectra)["embedding"]
    np.testing.assert_allclose(found[1], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=2e-2)


def test_a_note_survives_the_whole_way(trained: tuple[MagnitudeCodec, object], notes: Notes) -> None:
    codec = MagnitudeCodecRuntime(TorchModels(trained[0]))
    sound = notes.audio[7].astype(np.float32) / 32_768
    embedding = codec.encode(sound)
    assert embedding.shape == (60, 128)
    decoded = codec.decode(embedding)
    assert len(decoded) == 19_200
    assert log_spectral_distance(log_magnitude(sound), log_magnitude(decoded)) < 4.0
    assert codec.encode(np.zeros(100, dtype=np.float32)).shape == (0, 128)
    assert codec.decode(np.zeros((0, 128), dtype=np.float32)).shape == (0,)


def test_evaluate_counts_what_kept_its_pitch(notes: Notes) -> None:
    sounds = [notes.audio[i].astype(np.float32) / 32_768 for i in (0, 8)]
    pitches = iter([60.0, 60.4, float("nan"), 70.0])
    quality = evaluate(FullMagnitudeCodec(), sounds, lambda _: next(pitches, 1.0))
    # The unvoiced original is not asked for after decoding, so the second sound counts for nothing.
    assert (quality.notes, quality.voiced, quality.f0_kept) == (2, 1, 1.0)
    assert quality.lsd_db < 3.0


def test_mel_bands_keep_less_than_all_bins(notes: Notes) -> None:
    sounds = [notes.audio[i].astype(np.float32) / 32_768 for i in (0, 12)]
    mel, full = (evaluate(codec, sounds, lambda _: 60.0) for codec in (MelCodec(), FullMagnitudeCodec()))
    assert full.lsd_db < mel.lsd_db - 2.0
