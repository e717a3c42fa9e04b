"""What a trained encoder has to beat: vectors that need no training, on the same clips.

Both are the classics of the timbre literature: the average log-mel spectrum, and the mean and deviation of 40
mel-frequency cepstral coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from timbrel.encoders import filterbank

Encoder = Callable[[np.ndarray], np.ndarray]
"""Clips ``[b, 72000]`` (``frontend.clip``) to vectors ``[b, d]`` float32, compared by cosine."""

_COEFFICIENTS = 40
_BATCH = 64  # clips at a time: bounds the memory of their spectra


def mel(clips: np.ndarray) -> np.ndarray:
    """Mean over time of the log-mel spectrum in dB: ``[b, 72000] -> [b, 80]``, less its mean over bands.

    Without that mean a cosine compares shapes and not, first of all, levels.
    """
    average = np.concatenate([part.mean(axis=1) for part in _decibels(clips)])
    return average - average.mean(axis=1, keepdims=True)


def mfcc(clips: np.ndarray) -> np.ndarray:
    """Mean and deviation over time of cepstral coefficients 1 to 40: ``[b, 72000] -> [b, 80]``.

    Coefficient 0, the level, is left out. The cepstrum is the orthonormal DCT-II of the log-mel spectrum.
    """
    band = np.arange(filterbank.BANDS) + 0.5
    order = np.arange(1, _COEFFICIENTS + 1)
    basis = np.cos(np.pi * band[:, None] * order[None, :] / filterbank.BANDS) * np.sqrt(
        2.0 / filterbank.BANDS
    )
    parts = []
    for decibels in _decibels(clips):
        cepstrum = decibels @ basis
        parts.append(np.concatenate([cepstrum.mean(axis=1), cepstrum.std(axis=1)], axis=1))
    return np.concatenate(parts).astype(np.float32)


BASELINES: Mapping[str, Encoder] = {"mfcc": mfcc, "mel": mel}


def _decibels(clips: np.ndarray) -> list[np.ndarray]:
    """Log-mel spectra ``[b, 120, 80]`` in dB above the floor, batch by batch."""
    batches = range(0, len(clips), _BATCH)
    return [
        (10.0 * np.log10(filterbank.power_mel(clips[i : i + _BATCH]) / filterbank.FLOOR + 1.0)).astype(
            np.float32
        )
        for i in batches
    ]
