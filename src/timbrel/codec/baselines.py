"""Codecs without training, as yardsticks: what 128 mel bands keep, and what the phase reconstruction alone costs."""

from __future__ import annotations

import numpy as np

from timbrel.codec import phase
from timbrel.codec.spectrum import BINS, FFT_SIZE, SAMPLE_RATE, log_magnitude, to_decibels, to_magnitude

BANDS = 128
ROUNDS = 100


def mel_filters() -> np.ndarray:
    """128 triangles on the mel scale of O'Shaughnessy (2595 log10(1 + f / 700)), 0 … 12 kHz: float32 [128, 1025].

    Where triangles are narrower than a bin, each still covers the bins next to its centre, so that no band is empty.
    """
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, BANDS + 2) / 2595.0) - 1.0) * FFT_SIZE / SAMPLE_RATE
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(BINS, dtype=np.float64)
    rise = (bins - low) / np.maximum(centre - low, 1.0)
    fall = (high - bins) / np.maximum(high - centre, 1.0)
    filters = np.maximum(0.0, np.minimum(rise, fall))
    nearest = np.maximum(0.0, 1.0 - np.abs(bins - centre))
    return np.where(filters.sum(axis=1, keepdims=True) > 0.5, filters, nearest).astype(np.float32)


class MelCodec:
    """128 mel bands of magnitude, turned back by non-negative least squares; phase as in our codec."""

    def __init__(self) -> None:
        self._filters = mel_filters()

    def encode(self, audio: np.ndarray) -> np.ndarray:
        return to_decibels(to_magnitude(log_magnitude(audio)) @ self._filters.T)

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        return phase.reconstruct(to_decibels(self.invert(to_magnitude(embedding))))

    def invert(self, mel: np.ndarray) -> np.ndarray:
        """Non-negative magnitudes [frames, 1025] whose mel bands come close to ``mel`` [frames, 128].

        Multiplicative updates for squared error (Lee and Seung 2001, eq. 4), the filters fixed.
        """
        filters = self._filters
        spread = filters / np.maximum(filters.sum(axis=0, keepdims=True), 1e-6)
        magnitude = np.maximum(mel @ (spread / np.maximum(filters.sum(axis=1, keepdims=True), 1e-6)), 1e-9)
        wanted = mel @ filters
        for _ in range(ROUNDS):
            magnitude *= wanted / np.maximum((magnitude @ filters.T) @ filters, 1e-12)
        return magnitude


class FullMagnitudeCodec:
    """All 1025 magnitudes kept: the ceiling of any codec with this phase reconstruction."""

    def encode(self, audio: np.ndarray) -> np.ndarray:
        return log_magnitude(audio)

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        return phase.reconstruct(embedding)
