"""The folders that a Triton server reads: backends (CPU only) and a repository of models.

    <folder>/backends/python/       libtriton_python.so, triton_python_backend_utils.py, triton_python_backend_stub
    <folder>/backends/onnxruntime/  model.py (ours)
    <folder>/models/<model>/config.pbtxt
    <folder>/models/<model>/1/model.onnx

Everything is a real copy: Triton refuses links that leave its backend directory.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_INT64, ModelConfig

from timbrel.errors import BundleError, ConfigurationError
from timbrel.library.exported import read_exported
from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import MODELS, ModelEntry, read_manifest
from timbrel.serving.triton_devices import for_device
from timbrel.settings import TritonDevice

_TYPES = {"float32": TYPE_FP32, "int64": TYPE_INT64}
_BACKEND = Path(__file__).parent / "triton_backends" / "onnxruntime" / "model.py"


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """The files that the ``nvidia-pytriton`` wheel carries, for this Python."""

    root: Path
    libraries: Path

    @property
    def server(self) -> Path:
        return self.root / "bin" / "tritonserver"

    @property
    def caches(self) -> Path:
        return self.root / "caches"

    @property
    def stub(self) -> Path:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return self.root / "python_backend_stubs" / version / "triton_python_backend_stub"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` with the paths that server and stub need.

        The stub must take this interpreter's libpython, and find this environment's ``python`` first on PATH, or it
        imports another numpy or none.
        """
        libraries = [str(self.libraries), sysconfig.get_config_var("LIBDIR") or ""]
        environment = dict(base)
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            part for part in (*libraries, base.get("LD_LIBRARY_PATH", "")) if part
        )
        bin_folder = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join(part for part in (bin_folder, base.get("PATH", "")) if part)
        return environment


def find_wheel() -> tuple[TritonWheel | None, str]:
    """The wheel, or None with the reason why Triton cannot run from it here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None, f"its wheel runs on Linux x86_64 only, this is {sys.platform} {platform.machine()}"
    # find_spec does not run the package: importing pytriton would start its own machinery.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None, "the package nvidia-pytriton is not installed"
    package = Path(next(iter(spec.submodule_search_locations)))
    wheel = TritonWheel(package / "tritonserver", package.parent / "nvidia_pytriton.libs")
    for part in (wheel.server, wheel.stub, wheel.libraries):
        if not part.exists():
            return None, f"nvidia-pytriton carries no {part.name} for Python {platform.python_version()}"
    libc, version = platform.libc_ver()
    if libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < (2, 35):
        return None, f"it needs glibc 2.35 or newer, this host has {version}"
    return wheel, ""


def lay_out_backends(wheel: TritonWheel, folder: Path) -> None:
    """Write the backend directory for the wheel's server."""
    python = folder / "python"
    python.mkdir(parents=True)
    source = wheel.root / "backends" / "python"
    shutil.copyfile(source / "libtriton_python.so", python / "libtriton_python.so")
    shutil.copyfile(source / "triton_python_backend_utils.py", python / "triton_python_backend_utils.py")
    shutil.copyfile(wheel.stub, python / wheel.stub.name)
    (python / wheel.stub.name).chmod(0o755)
    (folder / "onnxruntime").mkdir()
    shutil.copyfile(_BACKEND, folder / "onnxruntime" / "model.py")


def lay_out_models(
    bundle: Path,
    configurations: Path,
    folder: Path,
    version: int = 1,
    device: TritonDevice = TritonDevice.AUTO,
) -> None:
    """Write a complete model repository into ``folder``: what a Triton on this or any other host serves.

    ``configurations`` holds ``<model>/config.pbtxt``, and where a bundle may have another model under the same name
    ``<model>/configs/<kind>.pbtxt``: the one with the tensors of the bundle's model is taken. Sizes that belong to
    the bundle's models (such as the width of ``stage2``) are taken from its manifest. On a GPU host the result is all
    that the official image needs: ``tritonserver --model-repository=<folder>``.

    A later ``version`` is laid beside the former ones, which share its configuration.

    Raises ConfigurationError if a configuration is missing, does not fit, or is not that of the former versions;
    BundleError if a model is missing.
    """
    manifest = read_manifest(bundle / MANIFEST_NAME)
    for name in MODELS:
        if name not in manifest.models:
            raise BundleError(f"the bundle has no model {name}: restore it (git checkout, or dvc repro)")
        entry = manifest.models[name]
        fitted = for_device(_fitted(configurations / name, entry), device)
        configuration = text_format.MessageToString(fitted)
        (folder / name / str(version)).mkdir(parents=True, exist_ok=True)
        path = folder / name / "config.pbtxt"
        if not path.exists():
            path.write_text(configuration)
        elif path.read_text() != configuration:
            raise ConfigurationError(
                f"the bundle's {name} has other inputs or outputs than the one that is served: stop the service, "
                "promote the bundle or name it in TIMBREL_BUNDLE, start the service again"
            )
        shutil.copyfile(bundle / entry.file, folder / name / str(version) / "model.onnx")


def lay_out_encoders(
    exported: Path, configurations: Path, folder: Path, device: TritonDevice = TritonDevice.AUTO
) -> list[str]:
    """Add the encoders of ``exported`` (`timbrel encoders export`) to a model repository; returns their names.

    They share the configurations of ``published_encoder``, each with its name and sizes. Raises as ``lay_out_models``.
    """
    names = []
    for encoder in read_exported(exported):
        configuration = _fitted(configurations / "published_encoder", encoder.model)
        configuration.name = encoder.name
        (folder / encoder.name / "1").mkdir(parents=True)
        written = text_format.MessageToString(for_device(configuration, device))
        (folder / encoder.name / "config.pbtxt").write_text(written)
        shutil.copyfile(exported / encoder.model.file, folder / encoder.name / "1" / "model.onnx")
        names.append(encoder.name)
    return names


def _fitted(folder: Path, entry: ModelEntry) -> ModelConfig:
    """The configuration with the model's own sizes; raises ConfigurationError if none is of this model."""
    usual = folder / "config.pbtxt"
    paths = [usual, *sorted(folder.glob("configs/*.pbtxt"))]
    found = ((path, _read(path)) for path in paths)
    path, configuration = next((pair for pair in found if _has_tensors(pair[1], entry)), (usual, None))
    if configuration is None:
        raise ConfigurationError(
            f"{path} names other tensors than the bundle's model ({', '.join([*entry.inputs, *entry.outputs])})"
        )
    leading = 1 if configuration.max_batch_size > 0 else 0
    for described, actual in ((configuration.input, entry.inputs), (configuration.output, entry.outputs)):
        for tensor in described:
            model = actual[tensor.name]
            sizes = model.shape[leading:]
            if tensor.data_type != _TYPES[model.dtype] or len(tensor.dims) != len(sizes):
                raise ConfigurationError(
                    f"{path}: {tensor.name} is {model.dtype} {model.shape} in the bundle's model"
                )
            tensor.dims[:] = [size if isinstance(size, int) else -1 for size in sizes]
    return configuration


def _has_tensors(configuration: ModelConfig, entry: ModelEntry) -> bool:
    return {tensor.name for tensor in configuration.input} == set(entry.inputs) and {
        tensor.name for tensor in configuration.output
    } == set(entry.outputs)


def _read(path: Path) -> ModelConfig:
    try:
        return text_format.Parse(path.read_text(), ModelConfig())
    except OSError:
        raise ConfigurationError(
            f"{path} is missing: point TIMBREL_MODEL_REPOSITORY at model_repository/"
        ) from None
    except text_format.ParseError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
