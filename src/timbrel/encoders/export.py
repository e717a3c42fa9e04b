"""The encoder as one ONNX graph, mel front end included: ``audio`` [b, 72000] to ``stage1`` and ``stage2``."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from timbrel.encoders.frontend import CLIP_SAMPLES
from timbrel.encoders.timbre import TimbreEncoder, TimbreNetwork
from timbrel.errors import DataError
from timbrel.files import atomic_write

INPUT = "audio"
OUTPUTS = ("stage1", "stage2")
OPSET = 18
TOLERANCE = 1e-4


def export(network: TimbreNetwork, path: Path) -> float:
    """Write ``timbre_encoder.onnx``; returns the largest difference to the network itself on test sounds.

    Raises DataError when the two differ by more than 1e-4: then the file is not written.
    """
    model = TimbreEncoder(network).eval()
    example = torch.zeros(2, CLIP_SAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            model,
            (example,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("b", min=1, max=4096)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content = program.model_proto.SerializeToString()
    difference = parity(model, content)
    if not difference <= TOLERANCE:
        raise DataError(
            f"The exported encoder differs from the trained one by {difference:.2g}; {path} not written."
        )
    with atomic_write(path) as handle:
        handle.write(content)
    return difference


def parity(model: TimbreEncoder, content: bytes, batch: int = 5) -> float:
    """Largest absolute difference of any output between torch and onnxruntime, on tones, noise and silence."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    clips = _test_sounds(batch)
    with torch.no_grad():
        expected = [value.numpy() for value in model(torch.from_numpy(clips))]
    found = session.run(list(OUTPUTS), {INPUT: clips})
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))


def _test_sounds(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    time = np.arange(CLIP_SAMPLES) / 24_000
    sounds = np.zeros((count, CLIP_SAMPLES), np.float32)  # the last stays silent
    for i in range(count - 1):
        harmonics = np.arange(1, 12)
        tone = np.sin(2 * np.pi * 110.0 * 2**i * harmonics[:, None] * time) / harmonics[:, None] ** (
            1 + i % 3
        )
        decay = np.exp(-time * rng.uniform(0.0, 4.0))
        sounds[i] = 0.1 * tone.sum(axis=0) * decay + 0.001 * rng.standard_normal(CLIP_SAMPLES)
    return sounds
