"""A network whose inputs and outputs have names: run by torch, written as ONNX, and the two compared.

The names are those of the model once exported, so that whoever asks need not know what computes: ``Graph.run`` takes
and gives what a session of onnxruntime or a model in Triton does.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE
from timbrel.errors import DataError
from timbrel.files import atomic_write
from timbrel.half_weights import halve

OPSET = 18
# Relative to the largest number of each output.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Free:
    """A dimension that differs from call to call: its name, its least size, and one to trace the network with."""

    name: str
    least: int = 1
    traced: int = 2
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """``module`` takes one tensor for each of ``inputs`` (name -> dimensions), in order, and gives all ``outputs``."""

    module: nn.Module
    inputs: Mapping[str, tuple[int | Free, ...]]
    outputs: tuple[str, ...]

    @torch.inference_mode()
    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As ``Models.run`` of the engine; there is one model, whatever it is called."""
        device = next((each.device for each in self.module.parameters()), torch.device("cpu"))
        given = [torch.from_numpy(np.ascontiguousarray(inputs[name])).to(device) for name in self.inputs]
        found = self.module(*given)
        return {name: each.cpu().numpy() for name, each in zip(self.outputs, found, strict=True)}

    def onnx(self) -> bytes:
        """The graph as an ONNX file, weights inside."""
        examples = tuple(
            torch.zeros([size.traced if isinstance(size, Free) else size for size in sizes])
            for sizes in self.inputs.values()
        )
        # One object for each name: equal names are equal sizes.
        free = {size.name: size for sizes in self.inputs.values() for size in sizes if isinstance(size, Free)}
        dims = {
            each.name: torch.export.Dim(each.name, min=each.least, max=each.most) for each in free.values()
        }
        shapes = tuple(
            {axis: dims[size.name] for axis, size in enumerate(sizes) if isinstance(size, Free)}
            for sizes in self.inputs.values()
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                self.module,
                examples,
                input_names=list(self.inputs),
                output_names=list(self.outputs),
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        # The exporter notes for each node which line of which file it came from, on this machine.
        for node in [*model.graph.node, *(node for each in model.functions for node in each.node)]:
            del node.metadata_props[:]
            node.doc_string = ""
        halve(model)
        return bytes(model.SerializeToString())

    def differences(self, content: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """By output: the largest difference between torch and onnxruntime, relative to its largest number."""
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = session.run(list(self.outputs), dict(inputs))
        expected = self.run("", inputs)
        return {
            name: float(np.abs(values - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-12))
            for name, values in zip(self.outputs, found, strict=True)
        }

    def write(self, path: Path, inputs: Mapping[str, np.ndarray]) -> float:
        """Write the ONNX file; returns the largest relative difference of any output on ``inputs``.

        Raises DataError when that is more than 1e-4: then the file is not written.
        """
        self.run("", inputs)  # the exporter would wrap what the network itself complains of
        content = self.onnx()
        difference = max(self.differences(content, inputs).values())
        if not difference <= TOLERANCE:
            raise DataError(
                f"the exported network differs from torch's by {difference:.2g}; {path} not written"
            )
        with atomic_write(path) as handle:
            handle.write(content)
        return difference


def tones(count: int) -> np.ndarray:
    """Clips [count, 72000] to compare two ways of computing with: decaying tones, some noise; the last is silent."""
    rng = np.random.default_rng(0)
    time = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    harmonics = np.arange(1, 12)[:, None]
    clips = np.zeros((count, CLIP_SAMPLES), dtype=np.float32)
    for i in range(count - 1):
        partials = np.sin(2 * np.pi * 110.0 * 2**i * harmonics * time) / harmonics ** (1 + i % 3)
        decay = np.exp(-time * rng.uniform(0.0, 4.0))
        clips[i] = 0.1 * partials.sum(axis=0) * decay + 0.001 * rng.standard_normal(CLIP_SAMPLES)
    return clips
