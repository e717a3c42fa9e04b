"""Triton and the in-process engine give the same numbers, model by model and through the whole engine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from support.recordings import note
from support.serving import Serving, free_ports
from support.tiny_bundle import tiny_bundle_folder

from timbrel.audio import Audio
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import DeadlineExceeded, TimbrelError, Unavailable
from timbrel.library.bundle import Bundle
from timbrel.library.manifest import MODELS
from timbrel.serving.triton_client import TritonModels

TOLERANCE = 1e-4


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


CASES = [
    ("timbre_encoder", {"audio": _random(1, 72_000)}),
    ("timbre_encoder", {"audio": _random(5, 72_000)}),
    ("codec_encoder", {"log_magnitude": _random(1, 300, 1025)}),
    ("codec_encoder", {"log_magnitude": _random(2, 37, 1025)}),
    ("codec_decoder", {"embedding": _random(1, 300, 128)}),
    ("codec_decoder", {"embedding": _random(3, 11, 128)}),
    ("map_encoder", {"embedding": _random(1, 150, 128)}),
    ("map_encoder", {"embedding": _random(4, 150, 128)}),
    (
        "generator",
        {
            "position": np.float32([[0.3, -0.6]]),
            "pitch": np.int64([12]),
            "velocity": np.float32([0.8]),
            "frames": np.int64([300]),
        },
    ),
    (
        "generator",
        {
            "position": np.float32([[0.3, -0.6], [-0.2, 0.1], [0.0, 0.9]]),
            "pitch": np.int64([0, 12, 24]),
            "velocity": np.float32([0.2, 0.8, 1.0]),
            "frames": np.int64([300]),
        },
    ),
]


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened = Bundle.open(tiny_bundle_folder())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def inprocess(bundle: Bundle) -> Iterator[OnnxModels]:
    models = OnnxModels({name: bundle.path(name) for name in MODELS})
    yield models
    models.close()


@pytest.fixture(scope="module")
def triton(serving: Serving) -> Iterator[TritonModels]:
    models = TritonModels(f"127.0.0.1:{serving.ports.triton_grpc}", 60)
    yield models
    models.close()


def test_the_cases_reach_every_model() -> None:
    assert {name for name, _ in CASES} == set(MODELS)


@pytest.mark.parametrize(
    ("model", "inputs"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_same_numbers(
    model: str, inputs: dict[str, np.ndarray], triton: TritonModels, inprocess: OnnxModels
) -> None:
    expected = inprocess.run(model, inputs)
    got = triton.run(model, inputs)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert got[name].shape == values.shape
        assert got[name].dtype == values.dtype
        # Zeros of the right shape are how the Python backend loses data.
        assert np.abs(values).max() > 1e-3
        np.testing.assert_allclose(got[name], values, rtol=0, atol=TOLERANCE, err_msg=name)


def test_same_numbers_from_many_threads_at_once(triton: TritonModels, inprocess: OnnxModels) -> None:
    """Dynamic batching puts these together, and must hand each caller its own rows."""
    clips = [_random(1, 72_000) * scale for scale in np.linspace(0.1, 2, 48, dtype=np.float32)]
    clips = [np.roll(clip, 1000 * shift, axis=1) for shift, clip in enumerate(clips)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda clip: triton.run("timbre_encoder", {"audio": clip}), clips))
    for clip, answer in zip(clips, answers, strict=True):
        expected = inprocess.run("timbre_encoder", {"audio": clip})
        for name, values in expected.items():
            np.testing.assert_allclose(answer[name], values, rtol=0, atol=TOLERANCE)


def test_the_whole_engine_gives_the_same_answers(
    bundle: Bundle, triton: TritonModels, inprocess: OnnxModels
) -> None:
    here, there = Engine(bundle, inprocess), Engine(bundle, triton)
    recording = Audio(note(24_000).astype(np.float32), 24_000)
    expected, got = here.search(recording, k=5), there.search(recording, k=5)
    assert [hit.patch_id for hit in got.hits] == [hit.patch_id for hit in expected.hits]
    for ours, theirs in zip(expected.hits, got.hits, strict=True):
        assert theirs.stage1_distance == pytest.approx(ours.stage1_distance, abs=TOLERANCE)
        assert theirs.stage2_distance == pytest.approx(ours.stage2_distance, abs=TOLERANCE)
    place, other = here.locate(recording), there.locate(recording)
    assert (other.x, other.y) == pytest.approx((place.x, place.y), abs=TOLERANCE)
    sound = here.synthesize(x=0.2, y=0.1, pitch=60, velocity=90, seconds=1)
    same = there.synthesize(x=0.2, y=0.1, pitch=60, velocity=90, seconds=1)
    assert np.abs(sound.samples).max() > 0.5
    np.testing.assert_allclose(same.samples, sound.samples, rtol=0, atol=1e-3)


def test_what_goes_wrong_has_its_own_error(serving: Serving, triton: TritonModels) -> None:
    with pytest.raises(Unavailable, match="unheard_of is not served"):
        triton.run("unheard_of", {"audio": _random(1, 72_000)})
    with pytest.raises(TimbrelError, match=r"timbre_encoder failed: .*unexpected shape") as caught:
        triton.run("timbre_encoder", {"audio": _random(1, 10)})
    assert not isinstance(caught.value, Unavailable)
    hurried = TritonModels(f"127.0.0.1:{serving.ports.triton_grpc}", 1e-5)
    # A full batch: one clip's answer can be there before anybody looks at the clock.
    with pytest.raises(DeadlineExceeded, match="took longer than"):
        hurried.run("timbre_encoder", {"audio": _random(16, 72_000)})
    hurried.close()
    # The server took no harm.
    assert triton.run("map_encoder", {"embedding": _random(1, 150, 128)})["position"].shape == (1, 2)


def test_the_raw_models_answer_anybody_who_speaks_kserve(serving: Serving, inprocess: OnnxModels) -> None:
    """Triton's own endpoints, by its own clients, over gRPC and over HTTP."""
    clip = _random(2, 72_000)
    expected = inprocess.run("timbre_encoder", {"audio": clip})
    for kind, port in ((triton_grpc, serving.ports.triton_grpc), (triton_http, serving.ports.triton_http)):
        client = kind.InferenceServerClient(f"127.0.0.1:{port}")
        assert client.is_server_ready()
        audio = kind.InferInput("audio", list(clip.shape), "FP32")
        audio.set_data_from_numpy(clip)
        answer = client.infer("timbre_encoder", [audio])
        for name, values in expected.items():
            np.testing.assert_allclose(answer.as_numpy(name), values, rtol=0, atol=TOLERANCE, err_msg=name)
        client.close()


def test_nobody_there_is_unavailable() -> None:
    models = TritonModels(f"127.0.0.1:{free_ports().triton_grpc}", 5)
    assert not models.is_ready(MODELS)
    with pytest.raises(Unavailable, match="does not answer"):
        models.run("map_encoder", {"embedding": _random(1, 150, 128)})
    models.close()


def test_triton_is_ready_and_tells_its_own_metrics(serving: Serving, triton: TritonModels) -> None:
    assert triton.is_ready(MODELS)
    with serving.client() as client:
        text = client.get(f"http://127.0.0.1:{serving.ports.triton_metrics}/metrics").text
    for name in MODELS:
        assert f'nv_inference_count{{model="{name}",version="1"}}' in text
