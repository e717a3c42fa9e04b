"""ONNX files half as large, where weights are numbers that half precision holds exactly."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

SMALLEST_HALVED = 1_024


def halve(model: onnx.ModelProto) -> None:
    """Store every large weight of ``model`` that half precision holds exactly in half precision, in place.

    A cast brings each back to single precision when the model is loaded: the file shrinks, no number changes.
    """
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or math.prod(weight.dims) < SMALLEST_HALVED:
            continue
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
