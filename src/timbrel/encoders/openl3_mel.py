"""The pictures that OpenL3 (Cramer, Wu, Salamon and Bello 2019) was trained on: windows of 1 s at 48 kHz.

    samples ─► half a second of zeros before ─► windows of 1 s, one every hop ─► spectra of 2,048, every 242
            ─► magnitudes ─► 128 or 256 Slaney mel bands ─► 10 log10, less the window's maximum, down to -80

The logarithm is of magnitudes, so that what is called -80 dB is a hundred-millionth of the loudest band: the network
learned that. Each spectrum begins at its frame, under a periodic Hann window; the last ones run into zeros. The bands
are triangles of equal area, from 0 Hz to 24 kHz, on Slaney's scale: linear up to 1 kHz, then 27 steps to each factor
of 6.4.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import fft

SAMPLE_RATE = 48_000
WINDOW = 48_000
HOP_SECONDS = 0.1
# Of the encoder: the published hop costs five times as much, for a mean over windows that overlap by nine tenths.
ENCODER_HOP_SECONDS = 0.5
FFT_SIZE = 2_048
FRAME_HOP = 242
FRAMES = -(-WINDOW // FRAME_HOP)
BANDS = 256
FLOOR = 1e-10
RANGE_DB = 80.0

_LINEAR_HZ = 200.0 / 3.0
_BREAK_HZ = 1_000.0
_LOG_STEP = np.log(6.4) / 27.0


def windows(audio: np.ndarray, hop_seconds: float = HOP_SECONDS) -> np.ndarray:
    """float32 [b, samples] at 48 kHz -> [b, windows, 48000]; window ``i`` is centred on ``i * hop_seconds``.

    The last one is filled up with zeros; so is a sound shorter than half a second.
    """
    hop = int(hop_seconds * SAMPLE_RATE)
    length = audio.shape[1] + WINDOW // 2
    count = 1 + max(0, -(-(length - WINDOW) // hop))
    after = (count - 1) * hop + WINDOW - length
    padded = np.pad(np.asarray(audio, dtype=np.float32), ((0, 0), (WINDOW // 2, after)))
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::hop]


def filters(bands: int = BANDS) -> np.ndarray:
    """What each of the 1,025 bins gives to each band: float32 [1025, bands]."""
    top = _BREAK_HZ / _LINEAR_HZ + np.log(SAMPLE_RATE / 2 / _BREAK_HZ) / _LOG_STEP
    edges = _hertz(np.linspace(0.0, top, bands + 2))
    bins = np.arange(FFT_SIZE // 2 + 1)[:, None] * (SAMPLE_RATE / FFT_SIZE)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (right - left), dtype=np.float32)


def picture(sounds: np.ndarray, bands: int = BANDS) -> np.ndarray:
    """Windows [..., 48000] -> float32 [..., bands, 199], in dB: 0 is the loudest of each window, -80 the floor."""
    bank = filters(bands)
    shape = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)).astype(np.float32)
    found = np.empty((*sounds.shape[:-1], bands, FRAMES), dtype=np.float32)
    after = (FRAMES - 1) * FRAME_HOP + FFT_SIZE - WINDOW
    for place in np.ndindex(
        sounds.shape[:-1]
    ):  # one at a time: spectra are 17 times as large as their window
        padded = np.pad(np.asarray(sounds[place], dtype=np.float32), (0, after))
        frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::FRAME_HOP]
        magnitudes = np.abs(fft.rfft(frames * shape, axis=-1)) @ bank
        decibels = 10.0 * np.log10(np.maximum(magnitudes, np.float32(FLOOR)))
        found[place] = np.maximum(decibels - decibels.max(), -RANGE_DB).T
    return found


def pictures(audio: np.ndarray) -> Mapping[str, np.ndarray]:
    """What OpenL3's model takes of audio float32 [b, samples] at 48 kHz: ``pictures`` [b, windows, 256, 199]."""
    return {"pictures": picture(windows(audio, ENCODER_HOP_SECONDS))}


def _hertz(slaney: np.ndarray) -> np.ndarray:
    beyond = np.maximum(slaney - _BREAK_HZ / _LINEAR_HZ, 0.0)
    return np.where(beyond > 0.0, _BREAK_HZ * np.exp(beyond * _LOG_STEP), slaney * _LINEAR_HZ)
