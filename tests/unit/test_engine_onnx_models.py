"""In-process models: the sessions' own numbers, errors in our words, and threads that do not disturb each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from support.tiny_bundle import tiny_bundle_folder

from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, Unavailable


@pytest.fixture(scope="module")
def paths() -> dict[str, Path]:
    return {path.stem: path for path in (tiny_bundle_folder() / "models").glob("*.onnx")}


def inputs(seed: int) -> dict[str, np.ndarray]:
    return {"embedding": np.random.default_rng(seed).standard_normal((1, 150, 128)).astype(np.float32)}


def test_a_run_gives_what_the_graph_gives(paths: dict[str, Path]) -> None:
    models = OnnxModels(paths, threads=2)
    expected = onnxruntime.InferenceSession(str(paths["map_encoder"])).run(None, inputs(0))
    found = models.run("map_encoder", inputs(0))
    assert list(found) == ["position", "pitch_logits"]
    for value, name in zip(expected, found, strict=True):
        np.testing.assert_allclose(found[name], value, atol=1e-6)


def test_threads_get_their_own_answers(paths: dict[str, Path]) -> None:
    models = OnnxModels(paths)
    alone = [models.run("map_encoder", inputs(seed))["pitch_logits"] for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda seed: models.run("map_encoder", inputs(seed))["pitch_logits"], range(40))
        )
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


def test_a_model_that_is_not_there_or_fails_is_unavailable(paths: dict[str, Path]) -> None:
    models = OnnxModels(paths)
    with pytest.raises(Unavailable, match="'other' is not loaded"):
        models.run("other", {})
    with pytest.raises(Unavailable, match="map_encoder failed"):
        models.run("map_encoder", {"embedding": np.zeros((1, 7, 9), np.float32)})
    models.close()
    with pytest.raises(Unavailable, match="'map_encoder' is not loaded"):
        models.run("map_encoder", inputs(0))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generator.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"generator\.onnx cannot be loaded"):
        OnnxModels({"generator": tmp_path / "generator.onnx"})
