"""From trained networks to a bundle that answers: the stages export, library, index and bundle, on untrained networks.

Random weights serve as well as trained ones here: what is tested is that every file fits every other, and that the
exported graphs compute what the networks do.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.tiny_bundle import write_tiny_patches
from support.tiny_models import tone

from timbrel.audio import Audio
from timbrel.codec import spectrum
from timbrel.codec.network import CodecConfig, MagnitudeCodec
from timbrel.codec.storage import save_codec
from timbrel.encoders import frontend, storage
from timbrel.encoders.style_network import StyleNetwork
from timbrel.encoders.timbre import Shape, TimbreEncoder, build
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.files import sha256_of
from timbrel.library.bundle import Bundle
from timbrel.params import load
from timbrel.pgesam import weights
from timbrel.pgesam.generator import Generator, GeneratorShape
from timbrel.pgesam.vae import Vae, VaeShape
from timbrel.stages import bundle, export, index, library

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4


class Notes:
    """Keeps what a stage tells about itself."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.figures.update(values)

    def dataset(self, name: str, path: Path) -> None:
        assert path.exists(), name

    def artifact(self, path: Path) -> None:
        assert path.exists()


class Networks(NamedTuple):
    codec: MagnitudeCodec
    encoder: TimbreEncoder
    vae: Vae
    generator: Generator


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(3)
    codec = MagnitudeCodec(CodecConfig(hidden=16))
    codec.start_from_pca(spectrum.log_magnitude(tone(57, 0, 0, seconds=3.0))[:200], seed=1)
    shape = GeneratorShape(
        width=16, heads=2, condition_layers=1, decoder_layers=2, feedforward=32, frames_per_token=4
    )
    vae = Vae(VaeShape(instruments=3, channels=(8,) * 5, hidden=(16,) * 4, head_width=8))
    encoder = TimbreEncoder(build(Shape(channels=(4, 4, 8, 8), embedding_size=16)), StyleNetwork(6))
    return Networks(codec.eval(), encoder.eval(), vae.eval(), Generator(shape).eval())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, networks: Networks) -> Path:
    """A checkout with untrained networks in data/, after the four stages."""
    root = tmp_path_factory.mktemp("checkout")
    data = root / "data"
    write_tiny_patches(data / "patches")
    (data / "patches" / "report.json").write_text(json.dumps({"tried": {"user": 1}}))
    (data / "notes").mkdir()
    (data / "notes" / "report.json").write_text(json.dumps({"soundfonts": ["TimGM6mb.sf2"]}))
    save_codec(networks.codec, data / "codec", {})
    storage.save(networks.encoder.network, data / "encoder", {})
    assert networks.encoder.style is not None
    storage.save_style(networks.encoder.style, data / "encoder", {})
    weights.save(networks.vae, data / "vae", "vae", {})
    weights.save(networks.generator, data / "generator", "generator", {"velocities": [40, 127]})
    for stage in (export, library, index, bundle):
        assert run(stage, root)
    return root


def run(stage: ModuleType, root: Path) -> dict[str, float]:
    record = Notes()
    stage.run(load(ROOT / "params" / "smoke.yaml"), root, record)
    return record.figures


@pytest.fixture(scope="module")
def models(root: Path) -> OnnxModels:
    return OnnxModels({path.stem: path for path in (root / "data" / "models").glob("*.onnx")})


def test_every_model_says_where_it_comes_from(root: Path) -> None:
    opened = Bundle.open(root / "bundle")
    for name, entry in opened.manifest.models.items():
        assert entry.licence
        folder = export.SOURCES.get(name, ("codec",))[0]
        assert sha256_of(root / "data" / folder / f"{folder}.safetensors") in entry.source
    names = [source.name for source in opened.manifest.data]
    assert names == ["FM voices of our own", "TimGM6mb.sf2", "banks"]
    assert opened.manifest.provenance.git_revision == "unknown"  # the temporary checkout is no repository
    assert len(opened.manifest.provenance.params_sha256) == 64


def test_stages_tell_their_figures(root: Path) -> None:
    figures = run(index, root)
    scales = np.load(root / "data" / "index" / "scales.npy")
    assert (len(scales), np.median(scales)) == (70, pytest.approx(1.0, rel=0.05))
    assert figures == {
        "vectors": 70.0, "dimension": 16.0, "partitions": 7.0, "largest_partition": 13.0, "unpitched": 5.0,
        "scales_done": 70.0, "scales_total": 70.0, "least_scale": scales.min(), "largest_scale": scales.max(),
        "scanned": 8.0,
    }  # fmt: skip
    figures = run(bundle, root)
    assert (figures["patches"], figures["renders"]) == (14.0, 70.0)
    assert figures["bytes"] < 64 * 2**20


def test_the_stages_give_the_same_bundle_again(root: Path) -> None:
    before = Bundle.open(root / "bundle").id
    for stage in (library, index, bundle):
        run(stage, root)
    assert Bundle.open(root / "bundle").id == before


def test_the_engine_answers_from_the_bundle(root: Path) -> None:
    opened = Bundle.open(root / "bundle")
    engine = Engine(opened, OnnxModels({name: opened.path(name) for name in opened.manifest.models}))
    sound = tone(60, 0.2, 0.0)
    hits = engine.search(Audio(sound, 24_000), k=3).hits
    assert hits[0].name == "Tone 8"  # even random weights know an equal sound
    assert hits[0].stage2_distance == pytest.approx(0, abs=1e-3)
    place = engine.locate(Audio(sound, 24_000))
    assert np.isfinite([place.x, place.y]).all()
    assert len(engine.synthesize(x=0.1, y=0.1, pitch=60, seconds=1).samples) == 24_000
    engine.close()


def test_the_timbre_encoder_is_the_network(models: OnnxModels, networks: Networks) -> None:
    clips = np.stack([frontend.clip(tone(pitch, 0.1, 0.2)) for pitch in (48, 60, 71)])
    with torch.inference_mode():
        expected = networks.encoder(torch.from_numpy(clips))
    found = models.run("timbre_encoder", {"audio": clips})
    for name, value in zip(("stage1", "stage2"), expected, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), atol=TOLERANCE)


def test_the_codec_is_the_network(models: OnnxModels, networks: Networks) -> None:
    codec = networks.codec
    log_magnitude = spectrum.log_magnitude(np.stack([tone(50, 0, 0), tone(64, 0.3, 0.4)]))
    with torch.inference_mode():
        embedding = codec.encode(torch.from_numpy(log_magnitude))
        decoded = codec.decode(embedding)
    found = models.run("codec_encoder", {"log_magnitude": log_magnitude})["embedding"]
    np.testing.assert_allclose(found, embedding.numpy(), atol=TOLERANCE)
    found = models.run("codec_decoder", {"embedding": embedding.numpy()})["log_magnitude"]
    np.testing.assert_allclose(found, decoded.numpy(), atol=1e-3)  # decibels, up to 80


def test_the_map_encoder_is_the_network(models: OnnxModels, networks: Networks) -> None:
    embedding = np.random.default_rng(1).standard_normal((3, 150, 128)).astype(np.float32)
    with torch.inference_mode():
        mu, _, logits = networks.vae.encoder(torch.from_numpy(embedding))
    found = models.run("map_encoder", {"embedding": embedding})
    np.testing.assert_allclose(found["position"], mu.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found["pitch_logits"], logits.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("frames", [1, 7, 300])
def test_the_generator_is_the_network(models: OnnxModels, networks: Networks, frames: int) -> None:
    position = np.array([[0.1, -0.5], [0.9, 0.2]], np.float32)
    pitch = np.array([0, 24], np.int64)
    velocity = np.array([0.2, 0.9], np.float32)
    expected = networks.generator.generate(
        *(torch.from_numpy(value) for value in (position, pitch, velocity)), frames=frames
    )
    inputs: dict[str, np.ndarray] = {
        "position": position,
        "pitch": pitch,
        "velocity": velocity,
        "frames": np.array([frames], np.int64),
    }
    found = models.run("generator", inputs)["embedding"]
    assert found.shape == (2, frames, 128)
    np.testing.assert_allclose(found, expected.numpy(), atol=TOLERANCE)
