"""What a model takes and gives, read from its ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from timbrel.errors import BundleError
from timbrel.library.manifest import ModelEntry, Tensor

# onnxruntime's names of types, in numpy's words.
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def describe_model(path: Path, *, source: str, licence: str) -> ModelEntry:
    """The manifest entry of an ONNX file, with the inputs and outputs that its graph declares.

    Raises:
        BundleError: onnxruntime cannot load it, or it uses another type than float32 and int64.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = {value.name: _tensor(value) for value in session.get_inputs()}
        outputs = {value.name: _tensor(value) for value in session.get_outputs()}
    except Exception as error:  # onnxruntime's errors share no base class
        raise BundleError(
            f"{path} is no usable model ({str(error).splitlines()[0]}); export it again"
        ) from error
    return ModelEntry(
        file=f"models/{path.name}", source=source, licence=licence, inputs=inputs, outputs=outputs
    )


def _tensor(value: Any) -> Tensor:
    # A free dimension is a name, or None where the exporter gave it none.
    shape = tuple("any" if size is None else size for size in value.shape)
    return Tensor(dtype=_DTYPES[value.type], shape=shape)
