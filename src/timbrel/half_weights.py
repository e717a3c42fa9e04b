"""ONNX files half as large, where numbers are such that half as many bits hold them exactly."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

SMALLEST_HALVED = 1_024
_HALF = {onnx.TensorProto.FLOAT: np.float16, onnx.TensorProto.INT64: np.int32}


def halve(model: onnx.ModelProto) -> None:
    """Store every large constant of ``model`` in half its bits where these hold it exactly, in place: weights in half
    precision, indices as int32.

    A cast brings each back when the model is loaded: the file shrinks, no number changes.
    """
    casts = []
    for constant in model.graph.initializer:
        if constant.data_type not in _HALF or math.prod(constant.dims) < SMALLEST_HALVED:
            continue
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            half = values.astype(_HALF[constant.data_type])
        if not np.array_equal(half.astype(values.dtype), values):
            continue
        name, whole = constant.name, constant.data_type
        constant.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=whole))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
