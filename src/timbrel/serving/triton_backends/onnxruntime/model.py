"""Triton's ``onnxruntime`` backend for hosts where only the Python backend is at hand.

Triton loads this file for every model whose configuration says ``backend: "onnxruntime"``; the official GPU image
brings a native backend of the same name, and there this folder is left out. Tensors cross as DLPack both ways:
with numpy 2 the ``as_numpy`` of this Triton hands out zeros and ``Tensor(name, array)`` sends nothing, silently.

It runs inside Triton's stub process, so it imports nothing of Timbrel.
"""

import ctypes
import json
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

# A capsule whose tensor was taken must be called this; it keeps the pointer, so the bytes live as long as the module.
_TAKEN = ctypes.c_char_p(b"used_dltensor")
_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


class TritonPythonModel:
    """One instance of one model."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.batches = config.get("max_batch_size", 0) > 0
        self.outputs = [output["name"] for output in config["output"]]

        options = onnxruntime.SessionOptions()
        parameters = config.get("parameters", {})
        # Without these every session would take all cores. Names as in the native backend.
        for name, attribute in (
            ("intra_op_thread_count", "intra_op_num_threads"),
            ("inter_op_thread_count", "inter_op_num_threads"),
        ):
            if name in parameters:
                setattr(options, attribute, int(parameters[name]["string_value"]))
        # Idle threads that spin would take the cores from the other models' processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        filename = config.get("default_model_filename") or "model.onnx"
        path = os.path.join(args["model_repository"], args["model_version"], filename)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]

    def execute(self, requests):
        feeds = [self._feed(request) for request in requests]
        if not self.batches or len(requests) == 1:
            return [self._answer(feed) for feed in feeds]
        # Triton put requests of equal shapes together: one pass over all of them.
        sizes = [next(iter(feed.values())).shape[0] for feed in feeds]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        try:
            results = self.session.run(self.outputs, joined)
        except Exception as error:
            return [_failure(error) for _ in requests]
        parts = [np.split(result, np.cumsum(sizes)[:-1]) for result in results]
        return [self._response([part[i] for part in parts]) for i in range(len(requests))]

    def finalize(self):
        self.session = None

    def _feed(self, request):
        return {
            name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in self.inputs
        }

    def _answer(self, feed):
        try:
            return self._response(self.session.run(self.outputs, feed))
        except Exception as error:
            return _failure(error)

    def _response(self, results):
        tensors = [_tensor(name, result) for name, result in zip(self.outputs, results, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _tensor(name, array):
    """The array as Triton's tensor, without a copy.

    ``from_dlpack`` renames the capsule to "used_dlpack" where the standard says "used_dltensor". numpy does not know
    the former for taken, complains from within the capsule's destructor, and ends in endless recursion.
    """
    # np.split hands out views; the tensor needs C order.
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    _rename_capsule(capsule, _TAKEN)
    return tensor


def _failure(error):
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error)))
