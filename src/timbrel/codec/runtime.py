"""Sound to embeddings and back through anything that runs the two models: serving's half, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from timbrel.codec import phase, spectrum

ENCODER = "codec_encoder"
DECODER = "codec_decoder"


class Codec(Protocol):
    """What EnCodec and ours have in common: 24 kHz, 75 frames a second, 128 numbers a frame."""

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """float32 [samples] at 24 kHz -> embedding float32 [samples // 320, 128]."""
        ...

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        """Embedding [frames, 128] -> float32 [frames * 320] at 24 kHz, within -1 … 1."""
        ...


class RunsModels(Protocol):
    """The part of the engine's ``Models`` that the codec needs."""

    def run(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class MagnitudeCodecRuntime:
    """The magnitude codec: numpy around the models ``codec_encoder`` and ``codec_decoder``.

    It keeps levels: embeddings of a quieter recording are those of a quieter sound. It was trained on notes with their
    peak at -1 dBFS, so bring a recording there first.
    """

    def __init__(self, models: RunsModels, *, iterations: int = phase.ITERATIONS) -> None:
        self._models = models
        self._iterations = iterations

    def encode(self, audio: np.ndarray) -> np.ndarray:
        log_magnitude = spectrum.log_magnitude(audio)
        if not len(log_magnitude):
            return np.zeros((0, 128), dtype=np.float32)
        return self._models.run(ENCODER, {"log_magnitude": log_magnitude[None]})["embedding"][0]

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        if not len(embedding):
            return np.zeros(0, dtype=np.float32)
        return phase.reconstruct(self.decode_log_magnitude(embedding), iterations=self._iterations)

    def decode_log_magnitude(self, embedding: np.ndarray) -> np.ndarray:
        """The spectrum that ``decode`` gives a phase to: [frames, 128] -> dB [frames, 1025]."""
        batch = np.ascontiguousarray(embedding, dtype=np.float32)[None]
        return self._models.run(DECODER, {"embedding": batch})["log_magnitude"][0]
