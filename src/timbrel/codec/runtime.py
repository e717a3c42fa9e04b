"""Sound to embeddings and back through anything that runs the two models: serving's half, without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np

from timbrel.codec import phase, spectrum
from timbrel.codec.spectrum import Spectra

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

    def encode_batch(self, audio: np.ndarray) -> np.ndarray:
        """As ``encode``, for notes of one length: [batch, samples] -> [batch, samples // 320, 128]."""
        ...

    def encode_spectra(self, note: Spectra) -> np.ndarray:
        """As ``encode``, for one note of which the spectra are known, and the phases of its first frames or none:
        -> [frames, 128]."""
        ...

    def decode_spectra(self, embedding: np.ndarray) -> Spectra:
        """Embeddings [batch, frames, 128] -> the spectra of what is decoded, with phases where they are known."""
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
        return self.encode_batch(audio[None])[0]

    def encode_batch(self, audio: np.ndarray) -> np.ndarray:
        log_magnitude = spectrum.log_magnitude(audio)
        if not log_magnitude.size:
            return np.zeros((*log_magnitude.shape[:2], 128), dtype=np.float32)
        return self._models.run(ENCODER, {"log_magnitude": log_magnitude})["embedding"]

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        if not len(embedding):
            return np.zeros(0, dtype=np.float32)
        return phase.reconstruct(
            self.decode_spectra(embedding[None]).log_magnitude[0], iterations=self._iterations
        )

    def encode_spectra(self, note: Spectra) -> np.ndarray:
        batch = np.ascontiguousarray(note.log_magnitude, dtype=np.float32)[None]
        return self._models.run(ENCODER, {"log_magnitude": batch})["embedding"][0]

    def decode_spectra(self, embedding: np.ndarray) -> Spectra:
        batch = np.ascontiguousarray(embedding, dtype=np.float32)
        return Spectra(self._models.run(DECODER, {"embedding": batch})["log_magnitude"], None)


class EncodecRuntime:
    """EnCodec: models ``codec_encoder`` and ``codec_decoder`` that take and give audio, nothing around them."""

    def __init__(self, models: RunsModels) -> None:
        self._models = models

    def encode(self, audio: np.ndarray) -> np.ndarray:
        return self.encode_batch(audio[None])[0]

    def encode_batch(self, audio: np.ndarray) -> np.ndarray:
        frames = audio.shape[1] // spectrum.HOP
        if not frames or not len(audio):
            return np.zeros((len(audio), frames, 128), dtype=np.float32)
        # No frame knows what follows it: what the last samples would begin is cut off before rather than after.
        whole = np.ascontiguousarray(audio[:, : frames * spectrum.HOP], dtype=np.float32)
        return self._models.run(ENCODER, {"audio": whole})["embedding"]

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        if not len(embedding):
            return np.zeros(0, dtype=np.float32)
        return self._decoded(embedding[None])[0]

    def encode_spectra(self, note: Spectra) -> np.ndarray:
        magnitude = spectrum.to_magnitude(note.log_magnitude)
        guess = phase.initial_phase(magnitude, note.phase)
        known = 0 if note.phase is None else len(note.phase)
        return self.encode(phase.griffin_lim(magnitude, guess, phase.ITERATIONS, known=known))

    def decode_spectra(self, embedding: np.ndarray) -> Spectra:
        spectra = spectrum.stft(self._decoded(embedding))
        return Spectra(spectrum.to_decibels(np.abs(spectra)), np.angle(spectra))

    def _decoded(self, embedding: np.ndarray) -> np.ndarray:
        batch = np.ascontiguousarray(embedding, dtype=np.float32)
        return np.clip(self._models.run(DECODER, {"embedding": batch})["audio"], -1.0, 1.0)


def codec_of(models: RunsModels, encoder_inputs: Collection[str]) -> Codec:
    """The codec behind two models, told by what ``codec_encoder`` takes (the manifest says it): spectra or audio."""
    return EncodecRuntime(models) if "audio" in encoder_inputs else MagnitudeCodecRuntime(models)
