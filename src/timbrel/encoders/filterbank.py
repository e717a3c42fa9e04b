"""The mel scale shared by the network and the baselines: framing, window, filters.

Frames are 1,024 samples (43 ms) every 600 (25 ms), 120 to a clip; frame ``t`` is centred on its 25 ms. Powers
are scaled so that the bands of one frame add up to its mean square relative to the clip's loudest 100 ms: the
loudest frame is near 1 (0 dB), and a band 60 dB below is at the floor.
"""

from __future__ import annotations

import numpy as np

from timbrel.encoders.frontend import CLIP_SAMPLES, REFERENCE_RMS, SAMPLE_RATE

FRAME = 1024
HOP = 600
FRAMES = CLIP_SAMPLES // HOP
BANDS = 80
LOWEST_HZ = 40.0
HIGHEST_HZ = 12_000.0
FLOOR = 1e-6
"""Power added before the logarithm: -60 dB from the loudest frame. What is quieter is not part of the timbre."""

PADDING = (FRAME - HOP) // 2
"""Zeros before and after the clip, so that the first and the last frame are centred like the others."""


def window() -> np.ndarray:
    """Periodic Hann window, float64 ``[1024]``."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME)


def power_scale() -> float:
    """Factor from ``|DFT|^2`` to power relative to the loudest 100 ms (Parseval, one-sided)."""
    return float(2.0 / (FRAME * np.sum(window() ** 2) * REFERENCE_RMS**2))


def mel(hz: np.ndarray | float) -> np.ndarray:
    """O'Shaughnessy's mel: 2595 log10(1 + f / 700)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def hertz(mels: np.ndarray | float) -> np.ndarray:
    """The inverse of ``mel``."""
    return 700.0 * (10.0 ** (np.asarray(mels, dtype=np.float64) / 2595.0) - 1.0)


def centres() -> np.ndarray:
    """Centre frequency of each band in Hz, float64 ``[80]``."""
    return hertz(np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2))[1:-1]


def filters() -> np.ndarray:
    """Triangular filters of unit peak, float64 ``[513, 80]``; between the outer centres each bin's weights sum to 1."""
    edges = hertz(np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2))
    bins = np.arange(FRAME // 2 + 1) * (SAMPLE_RATE / FRAME)
    rising = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def power_mel(clips: np.ndarray) -> np.ndarray:
    """Mel powers of clips: ``[b, 72000] -> [b, 120, 80]`` float32, frames first. The network's numbers, by FFT."""
    padded = np.pad(np.asarray(clips, dtype=np.float64), ((0, 0), (PADDING, PADDING)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME, axis=1)[:, ::HOP]
    bank, shape = filters(), window()
    # One clip at a time: the spectra of a whole batch would be many times the size of the batch.
    powers = [np.abs(np.fft.rfft(clip * shape, axis=1)) ** 2 @ bank for clip in frames]
    return (np.stack(powers) * power_scale()).astype(np.float32)
