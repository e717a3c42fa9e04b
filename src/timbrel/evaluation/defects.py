"""What can be wrong with a note whatever its pitch: found on the samples, by stated limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timbrel.audio import Audio

# A note may begin and end this far from zero, relative to its peak (-40 dB): more is a step that clicks.
EDGE_STEP = 0.01
# In its last 5 ms a note has faded to this share of its peak (-26 dB); louder, it was cut off.
END_LEVEL = 0.05
END_SECONDS = 0.005
CLIPPED_AT = 1.0 - 1.0 / 32768.0
SILENT_RMS = 1e-3
DIRECT_CURRENT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Defects:
    """What can be wrong with a note; see the constants above."""

    clipped: bool
    silent: bool
    clicking: bool
    cut_off: bool
    direct_current: bool


def defects(audio: Audio) -> Defects:
    """Look for clipping, silence, clicks at the ends, an end without a release, and an offset from zero."""
    samples = audio.samples.astype(np.float64)
    peak = float(np.abs(samples).max(initial=0.0))
    rms = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
    end = max(1, round(END_SECONDS * audio.sample_rate))
    silent = rms < SILENT_RMS
    step = max(abs(float(samples[0])), abs(float(samples[-1]))) if len(samples) else 0.0
    return Defects(
        clipped=bool((np.abs(samples) >= CLIPPED_AT).any()),
        silent=silent,
        clicking=not silent and step > EDGE_STEP * peak,
        cut_off=not silent and float(np.abs(samples[-end:]).max()) > END_LEVEL * peak,
        direct_current=not silent and abs(float(samples.mean())) > DIRECT_CURRENT * peak,
    )
