"""The models of a bundle run in this process, by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from timbrel.errors import BundleError, Unavailable


class OnnxModels:
    """One session per model. ``InferenceSession.run`` is thread-safe, so sessions are shared between threads."""

    def __init__(self, paths: Mapping[str, Path], *, threads: int = 1) -> None:
        """Load ONNX files by model name; each session computes on ``threads`` threads.

        Raises:
            BundleError: a file is no ONNX graph that this onnxruntime can run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores from the other sessions.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {}
        for name, path in paths.items():
            try:
                session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's errors share no base class
                raise BundleError(f"{path} cannot be loaded by onnxruntime ({_first_line(error)})") from error
            self._sessions[name] = session
        self._outputs = {name: [o.name for o in s.get_outputs()] for name, s in self._sessions.items()}

    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if model not in self._sessions:
            raise Unavailable(f"the model {model!r} is not loaded; it must be in the bundle")
        names = self._outputs[model]
        try:
            values = self._sessions[model].run(names, dict(inputs))
        except Exception as error:  # onnxruntime's errors share no base class
            raise Unavailable(f"the model {model} failed ({_first_line(error)})") from error
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        self._sessions.clear()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
