"""Published encoders beside the bundle's models: exported, and the same numbers in torch, onnxruntime and Triton."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support import clap, openl3
from support.published import write_random_efficientat
from support.serving import free_ports
from support.tiny_bundle import tiny_bundle_folder

from timbrel import settings
from timbrel.cli import main
from timbrel.encoders.graph import tones
from timbrel.encoders.interface import RunModel
from timbrel.encoders.registry import NETWORKS, open_encoder
from timbrel.engine.onnx_models import OnnxModels
from timbrel.files import sha256_of
from timbrel.library.exported import read_exported
from timbrel.library.manifest import MODELS
from timbrel.serving.triton_client import TritonModels
from timbrel.serving.triton_files import find_wheel
from timbrel.serving.triton_launcher import Triton

SHARED = os.environ.get("TIMBREL_SHARED", "")
needs_shared = pytest.mark.skipif(not SHARED, reason="TIMBREL_SHARED is not set: no weights to compare with")
# Of fresh weights, so that these tests run everywhere; the published file is served where it is at hand.
RANDOM, PUBLISHED = "efficientat-mn05", "efficientat-mn04"
OPENL3, CLAP = "openl3-512", "clap-630k"
SOUNDS = ("saw_220", "fm_bell_523", "noise", "square_110_am")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exports:
    """Where exported encoders lie, and the weights that they came from."""

    folder: Path
    weights: dict[str, Path]


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, relative to the largest number."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    # Zeros of the right shape are how the Python backend loses data.
    assert np.abs(wanted).max() > 1e-2
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exports")
    weights = {RANDOM: folder / "weights" / "mn05_as_mAP_000.pt"}
    weights[RANDOM].parent.mkdir()
    write_random_efficientat(weights[RANDOM], "mn05")
    weights[OPENL3] = openl3.write_published(folder / "weights" / "openl3_audio_mel256_music.h5")
    clap.write_vocabulary(folder)
    package = clap.package_model(folder, "HTSAT-tiny", seed=0)
    weights[CLAP] = clap.write_checkpoint(package, folder / "weights" / "630k-audioset-best.pt")
    if SHARED:
        weights[PUBLISHED] = Path(SHARED, "weights/mn04_as_mAP_432.pt")
    for name, path in weights.items():
        command = ["encoders", "export", name, "--weights", str(path), "--to", str(folder / "encoders")]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == str(folder / "encoders" / f"{name}.onnx")
        assert f"licence: {NETWORKS[name].licence}" in done.stderr
        assert f"TIMBREL_ENCODERS={folder / 'encoders'} timbrel serve" in done.stderr
    return Exports(folder / "encoders", weights)


@pytest.fixture(scope="module")
def triton(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonModels]:
    """The bundle's models and the exported encoders in one server."""
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    ports, folder = free_ports(), tmp_path_factory.mktemp("triton")
    chosen = settings.load(
        {
            "TIMBREL_BUNDLE": str(tiny_bundle_folder()),
            "TIMBREL_ENCODERS": str(exports.folder),
            "TIMBREL_STATE": str(folder),
            "TIMBREL_TRITON_HTTP_PORT": str(ports.triton_http),
            "TIMBREL_TRITON_GRPC_PORT": str(ports.triton_grpc),
            "TIMBREL_TRITON_METRICS_PORT": str(ports.triton_metrics),
        }
    )
    (folder / "logs").mkdir()
    server = Triton.start(chosen, wheel, folder / "run")
    try:
        server.wait_ready(lambda _: None, lambda: None)
        models = TritonModels(server.grpc_url, 60)
        yield models
        models.close()
    finally:
        server.stop()


def three_ways(exports: Exports, name: str, triton: TritonModels) -> dict[str, RunModel]:
    """What runs the encoder."""
    session = OnnxModels({name: exports.folder / f"{name}.onnx"})
    graph = NETWORKS[name].build(exports.weights[name], NETWORKS[name].style)
    return {"torch": graph.run, "onnxruntime": session.run, "triton": triton.run}


@pytest.mark.parametrize("name", [RANDOM, pytest.param(PUBLISHED, marks=needs_shared)])
def test_torch_onnxruntime_and_triton_give_the_same_numbers(
    exports: Exports, triton: TritonModels, name: str
) -> None:
    runs = three_ways(exports, name, triton)
    # More than Triton takes at once, and the last of them silent.
    clips = np.concatenate([tones(17), -0.3 * tones(3)])
    vectors = {way: open_encoder(name, run=run).embed(clips) for way, run in runs.items()}
    # Another length, one sound alone, and the scores, which the encoder leaves out.
    odd = tones(2)[:1, :33_333]
    answers = {way: run(name, {"audio": odd}) for way, run in runs.items()}
    assert np.abs(np.diff(vectors["torch"].embedding[:3], axis=0)).max() > 0.1
    for way in ("onnxruntime", "triton"):
        assert difference(vectors[way].embedding, vectors["torch"].embedding) < TOLERANCE, way
        assert vectors[way].style is not None
        assert difference(vectors[way].style, vectors["torch"].style) < TOLERANCE, way  # type: ignore[arg-type]
        assert list(answers[way]) == ["embedding", "logits", "style"]
        for output, wanted in answers["torch"].items():
            assert difference(answers[way][output], wanted) < TOLERANCE, (way, output)


@pytest.mark.parametrize("name", [OPENL3, CLAP])
def test_so_they_do_for_other_networks(exports: Exports, triton: TritonModels, name: str) -> None:
    clips = tones(3)
    found = {
        way: open_encoder(name, run=run).embed(clips)
        for way, run in three_ways(exports, name, triton).items()
    }
    wanted = found["torch"]
    assert wanted.style is not None
    for way in ("onnxruntime", "triton"):
        assert difference(found[way].embedding, wanted.embedding) < TOLERANCE, way
        assert difference(found[way].style, wanted.style) < TOLERANCE, way  # type: ignore[arg-type]


@needs_shared
def test_all_three_give_the_numbers_of_the_reference(exports: Exports, triton: TritonModels) -> None:
    with np.load(Path(SHARED, "golden/efficientat_mn04_golden.npz"), allow_pickle=False) as stored:
        golden = dict(stored)
    waves = np.stack([golden[f"{sound}__wave"] for sound in SOUNDS])
    for way, run in three_ways(exports, PUBLISHED, triton).items():
        found = run(PUBLISHED, {"audio": waves})
        for output in ("embedding", "logits"):
            for row, sound in enumerate(SOUNDS):
                wanted = golden[f"{sound}__{output}"]
                assert difference(found[output][row], wanted) < 1e-3, (way, sound, output)


def test_the_bundles_models_are_served_beside_them(triton: TritonModels) -> None:
    vectors = triton.run("timbre_encoder", {"audio": tones(2)})
    assert set(vectors) == {"stage1", "stage2"}
    assert RANDOM not in MODELS


def test_the_sidecar_says_what_it_is_and_where_it_comes_from(exports: Exports) -> None:
    names = [encoder.name for encoder in read_exported(exports.folder)]
    assert names == sorted(exports.weights)
    content = json.loads((exports.folder / f"{RANDOM}.json").read_text())
    assert content["sha256"] == sha256_of(exports.folder / f"{RANDOM}.onnx")
    assert content["model"]["licence"] == "MIT"
    assert content["model"]["source"].endswith(
        f"; {exports.weights[RANDOM].name} sha256 {sha256_of(exports.weights[RANDOM])}"
    )
    assert content["model"]["outputs"]["embedding"] == {"dtype": "float32", "shape": ["b", 480]}
    assert content["hears"] == {"sample_rate": 32_000, "samples": 96_000}
    assert content["style"] == {"blocks": None, "kind": "moments"}
    # Nothing but the pairs, so the folder can be carried elsewhere.
    kinds = {path.suffix for path in exports.folder.iterdir()}
    assert kinds == {".json", ".onnx"}
    copy = shutil.copytree(exports.folder, exports.folder.with_name("copy"))
    assert read_exported(Path(copy)) == read_exported(exports.folder)
