"""The mel picture that EfficientAT was trained on: 32 kHz, 128 Kaldi bands, a frame every 10 ms.

    samples ─► x[t] - 0.97 x[t-1] ─► spectra of 1,024 behind a window of 800 ─► power ─► bands ─► (log + 4.5) / 5

The bands are Kaldi's: triangles on the scale 1127 ln(1 + f / 700), 0 Hz to 15 kHz.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

SAMPLE_RATE = 32_000
FFT_SIZE = 1_024
WINDOW = 800
HOP = 320
BANDS = 128
HIGHEST_HZ = 15_000.0
PRE_EMPHASIS = 0.97
_FLOOR = 1e-5


def filters() -> np.ndarray:
    """What each of the 513 bins gives to each band: float32 [513, 128]; the Nyquist bin gives nothing."""
    edges = np.linspace(0.0, _mel(np.array(HIGHEST_HZ)), BANDS + 2)
    bins = _mel(np.arange(FFT_SIZE // 2) * SAMPLE_RATE / FFT_SIZE)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    bands = np.zeros((FFT_SIZE // 2 + 1, BANDS), dtype=np.float32)
    bands[:-1] = np.maximum(0.0, np.minimum(rising, falling))
    return bands


def picture(audio: np.ndarray) -> np.ndarray:
    """float32 [b, samples] at 32 kHz -> [b, 1, 128, frames], frames = 1 + (samples - 1) // 320.

    At least 514 samples: the ends are mirrored by half a spectrum.
    """
    audio = np.asarray(audio, dtype=np.float32)
    emphasised = audio[:, 1:] - np.float32(PRE_EMPHASIS) * audio[:, :-1]
    padded = np.pad(emphasised, ((0, 0), (FFT_SIZE // 2, FFT_SIZE // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE, axis=1)[:, ::HOP]
    spectra = fft.rfft(frames * _window(), axis=-1)
    power = spectra.real**2 + spectra.imag**2
    bands = np.log(power @ filters() + np.float32(_FLOOR))
    return np.ascontiguousarray(((bands + 4.5) / 5.0).transpose(0, 2, 1)[:, None], dtype=np.float32)


def _mel(hertz: np.ndarray) -> np.ndarray:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0))


def _window() -> np.ndarray:
    """A symmetric Hann window of 800 samples in the middle of 1,024, float32."""
    window = np.zeros(FFT_SIZE, dtype=np.float32)
    begin = (FFT_SIZE - WINDOW) // 2
    window[begin : begin + WINDOW] = np.hanning(WINDOW)
    return window
