"""The comb reads the codec's own spectrum at the right places, and no training touches it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from timbrel.codec.network import DIMENSIONS, CodecConfig, MagnitudeCodec
from timbrel.codec.spectrum_weights import spectrum_weights
from timbrel.codec.storage import DESCRIPTION, save_codec
from timbrel.errors import DataError
from timbrel.pgesam.comb import BINS, MULTIPLES, PitchComb, SpectrumDecoder
from timbrel.pgesam.curriculum import Curriculum
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.export import export_map_encoder
from timbrel.pgesam.vae import VaeShape
from timbrel.pgesam.vae_training import VaeTraining, encode, train_vae

HIDDEN = 16
SMALL = {"channels": (8,) * 5, "hidden": (16,) * 4, "head_width": 8, "dropout": 0.0}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> tuple[MagnitudeCodec, Path]:
    torch.manual_seed(3)
    network = MagnitudeCodec(CodecConfig(hidden=HIDDEN, corrections=1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
        network.mean.uniform_(-60, -20)
        network.latent_mean.normal_()
        network.latent_scale.uniform_(0.5, 2.0)
    network.round_weights()
    folder = tmp_path_factory.mktemp("codec")
    save_codec(network, folder, {})
    return network, folder


def reader(folder: Path) -> SpectrumDecoder:
    decoder = SpectrumDecoder(HIDDEN, DIMENSIONS)
    weights = spectrum_weights(folder)
    assert weights is not None
    decoder.take(weights)
    return decoder


def test_it_reads_the_lowest_bins_of_what_the_codec_decodes(codec: tuple[MagnitudeCodec, Path]) -> None:
    network, folder = codec
    embedding = torch.randn(7, DIMENSIONS, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Without decode's clamp at the floor, which the comb's range lies above.
        expected = network.spectrum(embedding * network.latent_scale + network.latent_mean)[:, :BINS]
        torch.testing.assert_close(reader(folder)(embedding), expected, rtol=1e-5, atol=1e-3)


def test_the_teeth_lie_at_multiples_of_each_pitch() -> None:
    """A tone of MIDI 60 (261.6 Hz), its partials at 0 dB and all else at -50: the teeth of 60 hold every multiple and
    nothing between; those of 48, an octave below, hold the even ones."""
    comb = PitchComb(HIDDEN, DIMENSIONS, pitches=25, lowest_pitch=48)
    with torch.no_grad():
        for parameter in comb.parameters():
            parameter.zero_()
        comb.decoder.mean.fill_(-50.0)
        for multiple in range(1, 20):
            comb.decoder.mean[round(multiple * 261.626 / (24_000 / 2_048))] = 0.0
        read = comb(torch.zeros(1, 80, DIMENSIONS)).reshape(25, len(MULTIPLES))
    loud, quiet = (0.0 + 35.0) / 20.0, (-50.0 + 35.0) / 20.0
    assert read[12].tolist() == pytest.approx(
        [loud if multiple == int(multiple) else quiet for multiple in MULTIPLES]
    )
    assert read[0].tolist() == pytest.approx([loud if multiple % 2 == 0 else quiet for multiple in MULTIPLES])


def test_encodec_frames_stand_for_no_spectrum(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the codec stage"):
        spectrum_weights(tmp_path)
    (tmp_path / DESCRIPTION).write_text(json.dumps({"kind": "encodec"}))
    assert spectrum_weights(tmp_path) is None


def test_a_map_learns_pitch_through_it_and_leaves_it_as_it_is(
    codec: tuple[MagnitudeCodec, Path], tmp_path: Path
) -> None:
    _, folder = codec
    rng = np.random.default_rng(5)
    by_pitch = rng.standard_normal((25, DIMENSIONS))
    entries = [(instrument, pitch) for instrument in range(6) for pitch in range(25)]
    tilts = 0.3 * rng.standard_normal((6, DIMENSIONS))
    embeddings = np.stack(
        [by_pitch[pitch] + tilts[i] + 0.05 * rng.standard_normal((40, DIMENSIONS)) for i, pitch in entries]
    ).astype(np.float16)
    instrument, pitch = (np.array(column) for column in zip(*entries, strict=True))
    notes = MapNotes(
        row=np.arange(len(entries)),
        instrument=instrument,
        family=instrument,
        pitch=pitch,
        velocity=np.full(len(entries), 100),
        split=np.full(len(entries), "train"),
        instruments=tuple("abcdef"),
    )
    shape = VaeShape(instruments=6, frames=40, spectrum_hidden=HIDDEN, **SMALL)
    training = VaeTraining(
        steps=150, batch_instruments=6, batch_pitches=12, learning_rate=3e-3, weight_decay=0.01, warmup_steps=5,
        margin=0.1, sample_scale=0.1, input_noise=0.05, mixed_share=0.5, decoded_notes=4, evaluate_every=150, seed=3,
    )  # fmt: skip
    curriculum = Curriculum(
        weights=dict.fromkeys(
            ("reconstruction", "neighbour", "regularisation", "kl", "pitch", "family", "instrument"), 0.1
        )
    )
    vae = train_vae(
        embeddings, notes, shape=shape, training=training, curriculum=curriculum, report=lambda *_: None,
        device=CPU, spectrum=spectrum_weights(folder),
    )  # fmt: skip
    assert vae.encoder.comb is not None
    before = reader(folder).state_dict()
    for name, tensor in vae.encoder.comb.decoder.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, msg=name)
    encoded = encode(vae, embeddings, notes.row, CPU)
    assert (encoded.pitch_logits.argmax(1) == pitch).mean() > 0.95

    path = tmp_path / "map_encoder.onnx"
    export_map_encoder(vae, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batch = embeddings[:9].astype(np.float32)
    position, logits = session.run(["position", "pitch_logits"], {"embedding": batch})
    np.testing.assert_allclose(position, encoded.mu[:9], atol=1e-4)
    np.testing.assert_allclose(logits, encoded.pitch_logits[:9], atol=1e-4)
