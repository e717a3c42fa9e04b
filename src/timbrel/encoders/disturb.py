"""Conditions of a recording on waveforms ``[samples]`` at 24 kHz: what a search has to bear, for measuring it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from timbrel.encoders.frontend import SAMPLE_RATE


def add_noise(audio: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """White noise ``snr_db`` below the recording's mean power."""
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    noise = rng.standard_normal(audio.size) * np.sqrt(power * 10.0 ** (-snr_db / 10.0))
    return (audio + noise).astype(np.float32)


def lead_in(audio: np.ndarray, seconds: float) -> np.ndarray:
    """Silence before the note."""
    return np.concatenate([np.zeros(round(seconds * SAMPLE_RATE), np.float32), audio.astype(np.float32)])


def gain(audio: np.ndarray, decibels: float) -> np.ndarray:
    """Louder or softer."""
    return (audio * 10.0 ** (decibels / 20.0)).astype(np.float32)


def tilt(audio: np.ndarray, decibels_per_octave: float) -> np.ndarray:
    """Zero-phase tilt about 1 kHz, between 50 Hz and 12 kHz."""
    return _filtered(audio, lambda hz: decibels_per_octave * np.log2(np.clip(hz, 50.0, None) / 1_000.0))


def low_pass(audio: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Zero-phase low-pass, 96 dB per octave above ``cutoff_hz``."""
    return _filtered(audio, lambda hz: -96.0 * np.maximum(0.0, np.log2(np.maximum(hz, 1.0) / cutoff_hz)))


def room(audio: np.ndarray, seconds: float, wet_db: float, rng: np.random.Generator) -> np.ndarray:
    """A diffuse room: noise that decays by 60 dB in ``seconds``, its energy ``wet_db`` relative to the direct sound."""
    time = np.arange(1, round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(time.size) * 10.0 ** (-3.0 * time / seconds)
    tail *= 10.0 ** (wet_db / 20.0) / np.sqrt(np.sum(tail**2))
    response = np.concatenate([[1.0], tail])
    size = audio.size + response.size - 1
    spectrum = np.fft.rfft(audio, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: audio.size].astype(np.float32)


def _filtered(audio: np.ndarray, decibels: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    hz = np.fft.rfftfreq(2 * audio.size, 1.0 / SAMPLE_RATE)
    gains = 10.0 ** (decibels(hz) / 20.0)
    return np.fft.irfft(np.fft.rfft(audio, 2 * audio.size) * gains)[: audio.size].astype(np.float32)
