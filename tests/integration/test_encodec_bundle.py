"""``codec.kind: encodec``: from weights that a user lays down, through every stage, to a bundle that is served."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from safetensors.torch import load_file, save_file
from support.encodec import write_tiny_folder
from support.serving import free_ports
from support.stage_record import Notes
from support.tiny_bundle import write_tiny_patches
from support.tiny_models import tone
from tritonclient.grpc.model_config_pb2 import ModelConfig

from timbrel import settings
from timbrel.audio import Audio
from timbrel.codec.encodec import PUBLISHED_RANGE, Encodec
from timbrel.codec.encodec_weights import NOTICE, read_weights
from timbrel.codec.runtime import EncodecRuntime
from timbrel.encoders import storage
from timbrel.encoders.timbre import Shape, build
from timbrel.engine import placing
from timbrel.engine.engine import Engine
from timbrel.engine.finish import finished
from timbrel.engine.onnx_models import OnnxModels
from timbrel.engine.sfz import instrument_files
from timbrel.errors import DataError
from timbrel.files import sha256_of
from timbrel.library.bundle import Bundle
from timbrel.notes.noteset import Note, NoteSet, NoteSetWriter
from timbrel.params import Params, load
from timbrel.pgesam.generator import load_generator
from timbrel.serving.triton_client import TritonModels
from timbrel.serving.triton_files import find_wheel
from timbrel.serving.triton_launcher import Triton
from timbrel.stages import bundle, codec, embeddings, export, generator, index, library, vae

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
RATE = 24_000
PLAYED = {"x": 0.2, "y": -0.1, "pitch": 60}


def profile() -> Params:
    params = load(ROOT / "params" / "smoke.yaml")
    return params.model_copy(update={"codec": params.codec.model_copy(update={"kind": "encodec"})})


def run(stage: ModuleType, root: Path) -> Notes:
    record = Notes(root / "build" / stage.__name__)
    stage.run(profile(), root, record)
    return record


def write_notes(folder: Path) -> None:
    """Six instruments of eight keys, two of them held out."""
    splits = ("train",) * 4 + ("validation", "test")
    with NoteSetWriter(folder) as writer:
        for number, split in enumerate(splits):
            for key in range(48, 72, 3):
                note = Note(
                    row=0, note_id=f"tone{number}-{key}", instrument=f"tone{number}", name=f"Tone {number}",
                    family=("organ", "brass", "flute")[number % 3], source="synthetic", pitch=key, velocity=100,
                    split=split, f0_midi=float(key), f0_confidence=0.9,
                )  # fmt: skip
                writer.add(note, tone(key, 0.3 * number - 0.8, 0.5 - 0.2 * number))
    (folder / "report.json").write_text(json.dumps({"soundfonts": []}))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that TIMBREL_WEIGHTS names: in it a very small EnCodec of 32 codebooks, as the hub has it."""
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_folder(folder / "encodec_24khz", codebooks=32)
    file = folder / "encodec_24khz" / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if name.startswith("decoder.layers.15.conv.") and not name.endswith("original1"):
            tensors[name] *= 0.005  # decoded sound stays within full scale
    save_file(tensors, file)
    return folder


@pytest.fixture(scope="module")
def network(weights: Path) -> Encodec:
    return read_weights(weights / "encodec_24khz", embedding_range=PUBLISHED_RANGE).network


@pytest.fixture(scope="module")
def said() -> io.StringIO:
    """What the codec stage printed."""
    return io.StringIO()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, weights: Path, said: io.StringIO) -> Path:
    """A checkout after every stage that a bundle needs; only the timbre encoder, which hears no codec, is untrained."""
    root = tmp_path_factory.mktemp("checkout")
    data = root / "data"
    write_notes(data / "notes")
    write_tiny_patches(data / "patches")
    (data / "patches" / "report.json").write_text(json.dumps({"tried": {"user": 0}}))
    torch.manual_seed(3)
    storage.save(
        build(Shape(channels=(4, 4, 8, 8), embedding_size=16)).eval(),
        data / "encoder",
        {},
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("TIMBREL_WEIGHTS", str(weights))
        recorded = run(codec, root)
    # The stage's curve is an output that DVC waits for: it must not be empty.
    assert [step for step, values in recorded.points if "heldout_lsd" in values] == [0]
    for stage in (embeddings, vae, generator, export, library, index, bundle):
        run(stage, root)
    return root


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[Engine]:
    opened = Bundle.open(root / "bundle")
    engine = Engine(opened, OnnxModels({name: opened.path(name) for name in opened.manifest.models}))
    yield engine
    engine.close()


def test_the_codec_stage_keeps_the_weights_tells_their_licence_and_measures_them(
    root: Path, weights: Path, said: io.StringIO
) -> None:
    assert f"[codec] {NOTICE}" in said.getvalue().splitlines()
    kept = json.loads((root / "data/codec/codec.json").read_text())
    assert kept["kind"] == "encodec"
    assert kept["source_sha256"] == sha256_of(weights / "encodec_24khz" / "model.safetensors")
    assert tuple(kept["config"]["embedding_range"]) == PUBLISHED_RANGE
    figures = kept["record"]["figures"]
    assert figures["heldout_notes_notes"] == figures["train_notes_notes"] == 6
    assert figures["heldout_notes_lsd_db"] > 1.0  # random weights keep nothing


def test_embeddings_are_those_of_the_supplied_network(root: Path, network: Encodec) -> None:
    notes = NoteSet.open(root / "data/notes")
    stored = np.load(root / "data/embeddings/embeddings.npy")
    rows = [0, 21, 47]
    with torch.inference_mode():
        expected = network.encode(torch.from_numpy(notes.float_audio(rows))).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(stored[rows], expected, rtol=0, atol=1e-3)  # kept in half precision


def test_the_bundle_states_the_weights_source_and_licence(root: Path, engine: Engine, weights: Path) -> None:
    manifest = engine.bundle.manifest
    digest = sha256_of(weights / "encodec_24khz" / "model.safetensors")
    for name in ("codec_encoder", "codec_decoder"):
        entry = manifest.models[name]
        assert entry.licence == "CC-BY-NC-4.0"
        assert entry.source == (
            f"EnCodec 24 kHz, weights supplied by the user: encodec_24khz, sha256 {digest}"
        )
    assert {entry.licence for entry in manifest.models.values()} == {"CC-BY-NC-4.0", "CC0-1.0"}
    card = (root / "bundle" / "MODEL_CARD.md").read_text()
    assert "CC-BY-NC-4.0 (codec_decoder, codec_encoder): not for commercial use" in card
    assert "keeps magnitudes" not in card
    readme = instrument_files(engine.instrument(x=0, y=0, seconds=0.2), manifest)["README.txt"].decode()
    assert "Licence: CC-BY-NC-4.0, CC0-1.0" in readme


def test_a_note_as_long_as_it_was_learned_is_the_decoded_sound_itself(
    root: Path, engine: Engine, network: Encodec
) -> None:
    trained, _ = load_generator(root / "data/generator")
    place = torch.tensor([[PLAYED["x"], PLAYED["y"]]], dtype=torch.float32)
    pitch = torch.tensor([int(PLAYED["pitch"]) - 48])
    with torch.inference_mode():
        written = trained.generate(place, pitch, torch.tensor([100 / 127]), frames=300)
        decoded = network.decode(written)[0].numpy()
    assert 0.05 < np.abs(decoded).max() < 1.0
    heard = engine.synthesize(**PLAYED, seconds=4.0).samples
    assert len(heard) == len(decoded) == 96_000
    expected = finished(decoded)
    # The start is faded in; from two windows before the end the damped release tells.
    held = slice(2_400, 70_000)
    gain = np.dot(heard[held], expected[held]) / np.dot(expected[held], expected[held])
    assert 0.5 < gain < 2.0
    np.testing.assert_allclose(heard[held], gain * expected[held], rtol=0, atol=2e-3)


def test_a_shorter_note_begins_as_the_whole_one(engine: Engine) -> None:
    whole = engine.synthesize(**PLAYED, seconds=4.0).samples[2_400:9_600]
    short = engine.synthesize(**PLAYED, seconds=1.0).samples
    assert len(short) == 24_000
    assert np.corrcoef(short[2_400:9_600], whole)[0, 1] > 0.99


def test_a_recording_lies_where_the_supplied_network_and_the_map_put_it(
    root: Path, engine: Engine, network: Encodec
) -> None:
    notes = NoteSet.open(root / "data/notes")
    codec = EncodecRuntime(engine.models)
    for row in (4, 44):
        audio = notes.float_audio([row])
        found = engine.locate(Audio(audio[0], RATE), refine=False)
        with torch.inference_mode():
            embedding = network.encode(torch.from_numpy(audio[:, :48_000])).numpy()
        heard = codec.encode_spectra(placing.hear(audio[0], midi=60.0, low=48, high=72).spectra)
        # The recording's own samples come back from its spectra, but for the last frames, which look beyond them.
        apart = np.abs(heard - embedding[0])[:140].max(axis=1)
        assert (apart < 1e-3).mean() > 0.97
        place = engine.models.run("map_encoder", {"embedding": embedding})["position"][0]
        place = place * min(1.0, engine.bundle.manifest.map.radius / float(np.hypot(*place)))
        assert (found.x, found.y) == pytest.approx(place, abs=3e-4)
    assert engine.locate(Audio(audio[0], RATE)).query.midi == pytest.approx(60, abs=0.5)


def test_triton_is_configured_for_it_and_gives_the_same_notes(
    root: Path, engine: Engine, tmp_path: Path
) -> None:
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    ports = free_ports()
    chosen = settings.load(
        {},
        bundle=root / "bundle",
        state=tmp_path / "state",
        triton_http_port=ports.triton_http,
        triton_grpc_port=ports.triton_grpc,
        triton_metrics_port=ports.triton_metrics,
    )
    server = Triton.start(chosen, wheel, tmp_path / "triton")
    try:
        server.wait_ready(lambda text: None, lambda: None)
        models = TritonModels(server.grpc_url, 60)
        for half, dims in (("encoder", ([-1], [-1, 128])), ("decoder", ([-1, 128], [-1]))):
            written = (tmp_path / f"triton/models/codec_{half}/config.pbtxt").read_text()
            configuration = text_format.Parse(written, ModelConfig())
            assert (list(configuration.input[0].dims), list(configuration.output[0].dims)) == dims
        audio = np.stack([tone(60, 0, 0), tone(55, 0.5, 0.2)])[:, :47_777]
        here, there = EncodecRuntime(engine.models), EncodecRuntime(models)
        np.testing.assert_allclose(
            there.encode_batch(audio), here.encode_batch(audio), rtol=0, atol=TOLERANCE
        )
        served = Engine(engine.bundle, models)
        expected = engine.synthesize(**PLAYED, seconds=1.0).samples
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(
            served.synthesize(**PLAYED, seconds=1.0).samples, expected, rtol=0, atol=1e-3
        )
        models.close()
    finally:
        server.stop()


def test_weights_that_are_missing_are_said_to_be(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIMBREL_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"no EnCodec weights: take encodec_24khz-d7cc33bc\.th"):
        run(codec, root)
    named = profile()
    named = named.model_copy(update={"codec": named.codec.model_copy(update={"weights": "weights/none.th"})})
    with pytest.raises(DataError, match=r"weights/none\.th is missing: take "):
        codec.run(named, root, Notes(root))
