"""The log-magnitude spectrogram that the codec stores, and the transforms around it.

Frame ``t`` looks at 2,048 samples (85 ms) centred on the middle of its own 320 samples, so ``n`` samples give exactly
``n // 320`` frames and the frames of a note cover the note symmetrically:

    samples   |  0 … 319  | 320 … 639 |  …
    centres         160         480

Levels are in dB relative to a full-scale sine (0 dB). The floor is soft: ``20 log10(|X| + 10 ** -4.5)``, so nothing
lies below -90 dB, nothing is lost above it, and silence decodes to exact silence because the floor is subtracted again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft

SAMPLE_RATE = 24_000
FFT_SIZE = 2_048
HOP = 320
BINS = FFT_SIZE // 2 + 1
FRAME_RATE = SAMPLE_RATE / HOP
FLOOR_DB = -90.0

_FLOOR = np.float32(10.0 ** (FLOOR_DB / 20.0))
_PAD = (FFT_SIZE - HOP) // 2


def _hann() -> np.ndarray:
    """The periodic Hann window, float32 [2048]; its overlapped squares are constant at this hop but for 1e-2."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)).astype(np.float32)


WINDOW = _hann()
# A sine of amplitude 1 that sits on a bin has |X| = sum(window) / 2.
FULL_SCALE = np.float32(WINDOW.sum() / 2.0)


class Spectra(NamedTuple):
    """``log_magnitude`` in dB and ``phase`` in radians, float32 [..., frames, 1025]; no phase where none is known."""

    log_magnitude: np.ndarray
    phase: np.ndarray | None


def stft(audio: np.ndarray) -> np.ndarray:
    """Complex spectra of ``audio`` [..., n] as complex64 [..., n // 320, 1025], full-scale sine = magnitude 1."""
    audio = np.asarray(audio, dtype=np.float32)
    frames = audio.shape[-1] // HOP
    if frames == 0:
        return np.zeros((*audio.shape[:-1], 0, BINS), dtype=np.complex64)
    padding = [(0, 0)] * (audio.ndim - 1) + [(_PAD, _PAD)]
    padded = np.pad(audio[..., : frames * HOP], padding)
    windows = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE, axis=-1)[..., ::HOP, :]
    return fft.rfft(windows * (WINDOW / FULL_SCALE), axis=-1)


def overlap_add(frames: np.ndarray) -> np.ndarray:
    """Windowed frames [t, 2048] added up at the hop: float32 [t * 320 + 1728] (the padding is still there)."""
    count = frames.shape[0]
    per_frame = -(-FFT_SIZE // HOP)
    width = per_frame * HOP
    padded = np.zeros((count, width), dtype=np.float32)
    padded[:, :FFT_SIZE] = frames
    # Column block j of frame t lands on block t + j: a sum of seven shifted copies, no Python loop over frames.
    blocks = padded.reshape(count, per_frame, HOP)
    total = np.zeros((count + per_frame - 1, HOP), dtype=np.float32)
    for j in range(per_frame):
        total[j : j + count] += blocks[:, j]
    return total.reshape(-1)[: (count - 1) * HOP + FFT_SIZE]


def window_energy(frames: int) -> np.ndarray:
    """The sum of the squared windows over the samples of ``frames`` frames: float32 [frames * 320]."""
    energy = overlap_add(np.broadcast_to(WINDOW**2, (frames, FFT_SIZE)))
    return np.maximum(energy[_PAD : _PAD + frames * HOP], 1e-3)


def istft(spectra: np.ndarray, energy: np.ndarray | None = None) -> np.ndarray:
    """The least-squares inverse of ``stft``: complex [t, 1025] -> float32 [t * 320].

    (Griffin and Lim 1984, eq. 6.) ``energy`` is ``window_energy(t)`` when the caller already has it.
    """
    count = spectra.shape[0]
    if count == 0:
        return np.zeros(0, dtype=np.float32)
    frames = fft.irfft(spectra.astype(np.complex64, copy=False), n=FFT_SIZE, axis=-1)
    total = overlap_add(frames * (WINDOW * FULL_SCALE))[_PAD : _PAD + count * HOP]
    return total / (window_energy(count) if energy is None else energy)


def to_decibels(magnitude: np.ndarray) -> np.ndarray:
    """Magnitudes (full-scale sine = 1) in dB with the soft floor: float32, -90 … about 0."""
    return np.float32(20.0) * np.log10(np.asarray(magnitude, dtype=np.float32) + _FLOOR)


def to_magnitude(log_magnitude: np.ndarray) -> np.ndarray:
    """The inverse of ``to_decibels``; what lies at or below the floor is exactly 0."""
    # Nothing real is louder than +6 dB per bin: a network that runs away must not overflow.
    decibels = np.minimum(np.asarray(log_magnitude, dtype=np.float32), np.float32(6.0))
    return np.maximum(np.float32(10.0) ** (decibels / np.float32(20.0)) - _FLOOR, np.float32(0.0))


def log_magnitude(audio: np.ndarray) -> np.ndarray:
    """What the codec stores: ``audio`` [..., n] at 24 kHz -> float32 [..., n // 320, 1025] in dB, never below -90."""
    return to_decibels(np.abs(stft(audio)))


def log_spectral_distance(reference: np.ndarray, other: np.ndarray) -> float:
    """LSD in dB between two log magnitudes [..., frames, bins]: root mean square over bins, mean over frames.

    Both must carry the soft floor (``log_magnitude``), so what is inaudible in both counts as equal.
    """
    square = (np.asarray(reference, dtype=np.float64) - other) ** 2
    return float(np.sqrt(square.mean(axis=-1)).mean())
