"""Configurations for GPU hosts: the ones in Git with other instances, batches and accelerators, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from support.tiny_bundle import tiny_bundle_folder
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from timbrel import settings
from timbrel.cli import main
from timbrel.library.manifest import MODELS
from timbrel.serving.triton_devices import TIMING_CACHE, for_device, has_one_length
from timbrel.settings import TritonDevice

CONFIGURATIONS = sorted((settings.ROOT / "model_repository").glob("*/**/*.pbtxt"))
GPU_DEVICES = [device for device in TritonDevice if device is not TritonDevice.AUTO]
CHANGED = ("instance_group", "dynamic_batching", "model_warmup", "optimization")


def _read(path: Path) -> ModelConfig:
    return text_format.Parse(path.read_text(), ModelConfig())


def _named(path: Path) -> str:
    return str(path.relative_to(settings.ROOT / "model_repository"))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=_named)
@pytest.mark.parametrize("device", TritonDevice)
def test_tensors_names_and_versions_are_those_of_the_configuration(path: Path, device: TritonDevice) -> None:
    original = _read(path)
    # As Triton reads it: written, and parsed by Triton's own protobuf.
    changed = text_format.Parse(text_format.MessageToString(for_device(original, device)), ModelConfig())
    assert original == _read(path)
    assert list(changed.input) == list(original.input)
    assert list(changed.output) == list(original.output)
    for field in CHANGED:
        changed.ClearField(field)
        original.ClearField(field)
    assert changed == original


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=_named)
def test_a_host_of_any_kind_gets_them_as_they_are(path: Path) -> None:
    assert for_device(_read(path), TritonDevice.AUTO) == _read(path)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=_named)
@pytest.mark.parametrize("device", GPU_DEVICES)
def test_every_model_is_on_every_gpu_and_those_of_one_length_are_batched(
    path: Path, device: TritonDevice
) -> None:
    changed = for_device(_read(path), device)
    one_length = changed.name in ("timbre_encoder", "map_encoder")
    assert has_one_length(changed) is one_length
    (group,) = changed.instance_group
    assert group.kind == ModelInstanceGroup.KIND_GPU
    assert list(group.gpus) == []  # all there are
    assert group.count == (2 if one_length else 1)
    assert changed.HasField("dynamic_batching") is one_length
    if one_length:
        assert list(changed.dynamic_batching.preferred_batch_size) == [4, 8, 16]
        assert changed.dynamic_batching.max_queue_delay_microseconds == 500
        assert [warmup.batch_size for warmup in changed.model_warmup] == [1, 16]
        for warmup in changed.model_warmup:
            assert {name: list(noise.dims) for name, noise in warmup.inputs.items()} == {
                tensor.name: list(tensor.dims) for tensor in changed.input
            }
    else:
        # Noise is no length of a note: the service tries each bundle out before it serves it.
        assert list(changed.model_warmup) == []


@pytest.mark.parametrize(
    ("device", "precision"),
    [(TritonDevice.GPU, None), (TritonDevice.TENSORRT, "FP32"), (TritonDevice.TENSORRT_FP16, "FP16")],
)
def test_tensorrt_computes_what_has_one_length(device: TritonDevice, precision: str | None) -> None:
    found = {}
    for name in MODELS:
        changed = for_device(_read(settings.ROOT / "model_repository" / name / "config.pbtxt"), device)
        for accelerator in changed.optimization.execution_accelerators.gpu_execution_accelerator:
            assert accelerator.name == "tensorrt"
            parameters = dict(accelerator.parameters)
            assert parameters["trt_timing_cache_path"] == TIMING_CACHE
            # A kept engine is found by the graph's names, and would answer for another bundle's weights.
            assert not any("engine_cache" in key for key in parameters)
            found[name] = parameters["precision_mode"]
    assert found == ({} if precision is None else {"timbre_encoder": precision, "map_encoder": precision})


def test_the_command_writes_a_repository_for_a_gpu_host(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    bundle = str(tiny_bundle_folder())
    said = CliRunner().invoke(
        main, ["triton", "repository", str(folder), "--device", "tensorrt", "--bundle", bundle]
    )
    assert said.exit_code == 0, said.output
    assert said.output == f"{folder}: {', '.join(sorted(MODELS))}\n"
    for name in MODELS:
        assert (folder / name / "1" / "model.onnx").stat().st_size > 0
        (group,) = _read(folder / name / "config.pbtxt").instance_group
        assert group.kind == ModelInstanceGroup.KIND_GPU
    again = CliRunner().invoke(main, ["triton", "repository", str(folder), "--bundle", bundle])
    assert again.exit_code == 2
    assert "is not empty" in again.output
