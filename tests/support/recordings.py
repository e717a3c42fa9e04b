"""Recordings in every format, and files that are none."""

from __future__ import annotations

import io

import numpy as np
import soundfile

MIDI_60_HZ = 261.6256


def note(sample_rate: int, *, seconds: float = 1.5, channels: int = 1, hz: float = MIDI_60_HZ) -> np.ndarray:
    """A note with eight partials: float64 [n] or [n, channels]; the channels differ in level."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    partials = [n for n in range(1, 9) if n * hz < 0.45 * sample_rate]
    sound = sum(np.sin(2 * np.pi * hz * n * time) / n for n in partials)
    sound = 0.4 * sound * np.minimum(1, time / 0.02) * np.minimum(1, (seconds - time) / 0.1)
    if channels == 1:
        return sound
    return sound[:, None] * np.linspace(1.0, 0.7, channels)


def encoded(samples: np.ndarray, sample_rate: int, container: str, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, sample_rate, format=container, subtype=subtype)
    return out.getvalue()


def wav_note(*, sample_rate: int = 24_000, seconds: float = 1.5, hz: float = MIDI_60_HZ) -> bytes:
    return encoded(note(sample_rate, seconds=seconds, hz=hz), sample_rate, "WAV", "PCM_16")
