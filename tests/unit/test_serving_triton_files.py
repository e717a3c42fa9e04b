"""Triton's folders: configurations that are complete and fit the models, for CPU and GPU hosts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from support.tiny_bundle import tiny_bundle_folder
from tritonclient.grpc.model_config_pb2 import ModelConfig

from timbrel import settings
from timbrel.errors import BundleError, ConfigurationError
from timbrel.library.manifest import MODELS, Tensor, read_manifest
from timbrel.serving.triton_files import find_wheel, lay_out_backends, lay_out_models

CONFIGURATIONS = settings.ROOT / "model_repository"


def _configuration(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


def test_every_model_has_a_configuration_and_there_is_no_other() -> None:
    assert {path.parent.name for path in CONFIGURATIONS.glob("*/config.pbtxt")} == {
        *MODELS,
        "published_encoder",
    }


@pytest.mark.parametrize("name", [*MODELS, "published_encoder"])
def test_configurations_run_on_cpu_and_gpu_alike(name: str) -> None:
    configuration = _configuration(CONFIGURATIONS / name / "config.pbtxt")
    assert configuration.name == name
    assert configuration.backend == "onnxruntime"
    assert configuration.default_model_filename == "model.onnx"
    # KIND_AUTO: the GPU where there is one. KIND_GPU would not load on a CPU.
    assert [group.kind for group in configuration.instance_group] == [0]
    assert int(configuration.parameters["intra_op_thread_count"].string_value) >= 1
    assert configuration.dynamic_batching.max_queue_delay_microseconds == 0


def test_only_models_with_inputs_of_one_length_are_batched() -> None:
    for name in [*MODELS, "published_encoder"]:
        configuration = _configuration(CONFIGURATIONS / name / "config.pbtxt")
        fixed = all(size > 0 for tensor in configuration.input for size in tensor.dims)
        assert configuration.HasField("dynamic_batching") == (fixed and configuration.max_batch_size > 0)
    assert _configuration(CONFIGURATIONS / "generator" / "config.pbtxt").max_batch_size == 0


def test_the_repository_is_complete_and_has_the_bundles_own_sizes(tmp_path: Path) -> None:
    bundle = tiny_bundle_folder()
    lay_out_models(bundle, CONFIGURATIONS, tmp_path)
    manifest = read_manifest(bundle / "manifest.json")
    for name in MODELS:
        model = (tmp_path / name / "1" / "model.onnx").read_bytes()
        assert model == (bundle / manifest.models[name].file).read_bytes()
    encoder = _configuration(tmp_path / "timbre_encoder" / "config.pbtxt")
    sizes = {tensor.name: list(tensor.dims) for tensor in encoder.output}
    # The tiny encoder is narrower than the trained one that the configuration in Git describes.
    assert sizes == {"stage1": [16], "stage2": [96]}
    generator = _configuration(tmp_path / "generator" / "config.pbtxt")
    assert [list(tensor.dims) for tensor in generator.input] == [[-1, 2], [-1], [-1], [1]]
    assert [list(tensor.dims) for tensor in generator.output] == [[-1, -1, 128]]


def test_the_configurations_in_git_have_the_sizes_of_the_bundle_in_git(tmp_path: Path) -> None:
    bundle = settings.ROOT / "bundle"
    if not bundle.is_dir():
        pytest.skip("the bundle has not been built yet")
    lay_out_models(bundle, CONFIGURATIONS, tmp_path)
    for name in MODELS:
        written = _configuration(CONFIGURATIONS / name / "config.pbtxt")
        assert _configuration(tmp_path / name / "config.pbtxt") == written, name


def test_a_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(CONFIGURATIONS, tmp_path / "configurations")
    path = tmp_path / "configurations" / "map_encoder" / "config.pbtxt"
    original = path.read_text()
    path.write_text(original.replace('"embedding" data_type: TYPE_FP32', '"embedding" data_type: TYPE_FP16'))
    with pytest.raises(ConfigurationError, match="embedding is float32"):
        lay_out_models(tiny_bundle_folder(), tmp_path / "configurations", tmp_path / "a")
    path.write_text(original.replace('"position"', '"place"'))
    with pytest.raises(ConfigurationError, match="names other tensors than the bundle's model"):
        lay_out_models(tiny_bundle_folder(), tmp_path / "configurations", tmp_path / "b")
    path.write_text("name: ")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        lay_out_models(tiny_bundle_folder(), tmp_path / "configurations", tmp_path / "c")
    path.unlink()
    with pytest.raises(ConfigurationError, match="TIMBREL_MODEL_REPOSITORY"):
        lay_out_models(tiny_bundle_folder(), tmp_path / "configurations", tmp_path / "d")


def test_a_bundle_with_encodec_gets_encodecs_configurations(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle_folder(), tmp_path / "bundle"))
    manifest = read_manifest(bundle / "manifest.json")
    audio = Tensor(dtype="float32", shape=("batch", "samples"))
    encoder, decoder = (manifest.models[f"codec_{half}"] for half in ("encoder", "decoder"))
    codec = {
        "codec_encoder": replace(encoder, inputs={"audio": audio}),
        "codec_decoder": replace(decoder, outputs={"audio": audio}),
    }
    other = replace(manifest, models={**manifest.models, **codec})
    (bundle / "manifest.json").write_bytes(replace(other, id=other.content_id()).to_json())
    lay_out_models(bundle, CONFIGURATIONS, tmp_path / "models")
    for half, given, wanted in (("encoder", "audio", "embedding"), ("decoder", "embedding", "audio")):
        configuration = _configuration(tmp_path / "models" / f"codec_{half}" / "config.pbtxt")
        usual = _configuration(CONFIGURATIONS / f"codec_{half}" / "config.pbtxt")
        dims = {"audio": [-1], "embedding": [-1, 128]}
        assert [(each.name, list(each.dims)) for each in configuration.input] == [(given, dims[given])]
        assert [(each.name, list(each.dims)) for each in configuration.output] == [(wanted, dims[wanted])]
        # Nothing else differs between the two codecs.
        for side in ("input", "output"):
            configuration.ClearField(side)
            usual.ClearField(side)
        assert configuration == usual
    shutil.rmtree(tmp_path / "models")
    lay_out_models(tiny_bundle_folder(), CONFIGURATIONS, tmp_path / "models")
    magnitude = _configuration(tmp_path / "models" / "codec_encoder" / "config.pbtxt")
    assert [each.name for each in magnitude.input] == ["log_magnitude"]


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        lay_out_models(tmp_path, CONFIGURATIONS, tmp_path / "out")


def test_backends_are_real_copies(tmp_path: Path) -> None:
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    lay_out_backends(wheel, tmp_path / "backends")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        "backends/python/triton_python_backend_stub",
        "backends/onnxruntime/model.py",
    }
    # A link would "escape backend directory".
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    environment = wheel.environment({"PATH": "/bin", "HOME": "/root"})
    assert environment["HOME"] == "/root"
    assert environment["PATH"].endswith(":/bin")
    assert environment["LD_LIBRARY_PATH"].startswith(str(wheel.libraries))


def test_another_platform_gets_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    wheel, reason = find_wheel()
    assert wheel is None
    assert "Linux x86_64 only, this is darwin" in reason
