"""Hertz and MIDI note numbers: 69 is A4, 440 Hz; a semitone is a factor of 2^(1/12)."""

from __future__ import annotations

import math


def hz_to_midi(hz: float) -> float:
    """The (fractional) MIDI number of a frequency; nan for nan and for what is not above 0."""
    return 69.0 + 12.0 * math.log2(hz / 440.0) if hz > 0 else math.nan


def midi_to_hz(midi: float) -> float:
    """The frequency of a (fractional) MIDI number."""
    return 440.0 * 2.0 ** ((midi - 69.0) / 12.0)


def cents_between(hz: float, reference_hz: float) -> float:
    """How far ``hz`` lies above ``reference_hz``, in cents (1/100 semitone)."""
    return 1200.0 * math.log2(hz / reference_hz)
