"""The bundle in Git, served by the real Triton: its models give the in-process engine's numbers, and it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.serving import Serving

from timbrel.audio import wav_bytes
from timbrel.codec.spectrum import log_magnitude
from timbrel.encoders.frontend import clip
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.library.bundle import Bundle
from timbrel.library.manifest import MODELS
from timbrel.pitch.estimate import estimate_by_swift
from timbrel.serving.triton_client import TritonModels
from timbrel.serving.triton_files import find_wheel

TOLERANCE = 1e-4
ROOT = Path(__file__).resolve().parents[2]
PLACE = {"x": 0.2, "y": -0.4, "pitch": 60}


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened = Bundle.open(ROOT / "bundle")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def inprocess(bundle: Bundle) -> Iterator[OnnxModels]:
    models = OnnxModels({name: bundle.path(name) for name in MODELS})
    yield models
    models.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`timbrel serve` with the real Triton over the repository's bundle."""
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    running = Serving.start(ROOT / "bundle", tmp_path_factory.mktemp("release"), workers="1")
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def test_every_model_gives_the_same_numbers(release: Serving, bundle: Bundle, inprocess: OnnxModels) -> None:
    """On a real note, each model fed with the in-process answer of the one before it."""
    triton = TritonModels(f"127.0.0.1:{release.ports.triton_grpc}", 60)

    def same(model: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        expected, got = inprocess.run(model, inputs), triton.run(model, inputs)
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            assert (
                np.abs(values).max() > 1e-3
            )  # zeros of the right shape are how the Python backend loses data
            np.testing.assert_allclose(
                got[name], values, rtol=1e-5, atol=TOLERANCE, err_msg=f"{model}.{name}"
            )
        return expected

    note = Engine(bundle, inprocess).synthesize(**PLACE, seconds=4)
    spectrum = log_magnitude(note.samples)[None].astype(np.float32)
    embedding = same("codec_encoder", log_magnitude=spectrum)["embedding"]
    same("codec_decoder", embedding=embedding)
    same("map_encoder", embedding=np.ascontiguousarray(embedding[:, :150]))
    same("timbre_encoder", audio=clip(note.samples)[None].astype(np.float32))
    place = np.float32([[0.2, -0.4], [-0.5, 0.3]])
    same(
        "generator",
        position=place,
        pitch=np.int64([12, 0]),
        velocity=np.float32([0.8, 0.3]),
        frames=np.int64([300]),
    )
    triton.close()


def test_a_synthesised_note_has_its_pitch_and_a_patch_finds_itself(release: Serving, bundle: Bundle) -> None:
    with release.client() as http:
        wave = http.post("/synthesize", json=PLACE | {"seconds": 2}).raise_for_status().content
        found = http.post("/search", files={"audio": wave}, data={"k": "5", "gate": "require"})
        query = found.raise_for_status().json()["query"]
        assert query["midi"] == pytest.approx(60, abs=0.5)
        preview = http.get(f"/patches/{bundle.patches[0].patch_id}/preview").raise_for_status().content
        hits = (
            http.post("/search", files={"audio": preview}, data={"k": "3"}).raise_for_status().json()["hits"]
        )
        assert bundle.patches[0].patch_id in [hit["patch_id"] for hit in hits]
        patch = http.get(hits[0]["links"]["patch"]).raise_for_status().content
        assert patch[:2] == b"\xf0\x43"
        assert len(patch) == 163


def test_the_same_sound_in_process_and_through_triton(
    release: Serving, bundle: Bundle, inprocess: OnnxModels
) -> None:
    sound = Engine(bundle, inprocess).synthesize(**PLACE, seconds=1)
    assert estimate_by_swift(sound.samples, sound.sample_rate).midi == pytest.approx(60, abs=0.5)
    with release.client() as http:
        wave = http.post("/synthesize", json=PLACE | {"seconds": 1}).raise_for_status().content
    here, there = (np.frombuffer(data[44:], dtype="<i2").astype(int) for data in (wav_bytes(sound), wave))
    assert len(here) == len(there) == 24_000
    # The phase search amplifies a last bit of the models: a thousandth of full scale.
    assert np.abs(here - there).max() <= 33
