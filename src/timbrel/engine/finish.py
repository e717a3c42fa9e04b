"""The last touch to a synthesised note, between the codec and the listener."""

from __future__ import annotations

import numpy as np
from scipy import signal

from timbrel.codec import phase, spectrum
from timbrel.library.vectors import NOTE_PEAK
from timbrel.pitch.gate import SILENCE_PEAK

# High-pass of second order, 20 Hz: a magnitude codec leaves the lowest bin, and so a direct current, to chance.
BLOCK_DC = signal.butter(2, 20.0, btype="highpass", fs=spectrum.SAMPLE_RATE, output="sos")


def finished(samples: np.ndarray) -> np.ndarray:
    """A decoded note float32 [n] at 24 kHz as it is served: without direct current, peak at -1 dBFS."""
    return _at_note_level(_without_direct_current(samples))


def _without_direct_current(samples: np.ndarray) -> np.ndarray:
    """The note high-passed at 20 Hz; its end, where the filter still swings, comes down to zero in 5 ms."""
    filtered = signal.sosfilt(BLOCK_DC, samples).astype(np.float32)
    filtered[-phase.FADE_OUT :] *= np.linspace(1.0, 0.0, phase.FADE_OUT, dtype=np.float32)
    return filtered


def _at_note_level(samples: np.ndarray) -> np.ndarray:
    """Peak at -1 dBFS, like every note that the models have seen; what is all but silent stays so."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < SILENCE_PEAK:
        return samples
    return (samples * (NOTE_PEAK / peak)).astype(np.float32)
