"""Other timbres made of a sound: a new attack, decay, tilt, band or drive, by known amounts.

What a sound designer turns on a synthesiser, applied to any sound. Sounds that differ by a known, small amount teach
an encoder what engines and presets alone leave out: that timbre is graded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

_LEVEL = 0.3  # root mean square of a driven sound before the saturation


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is done to a sound, in this order; None: left as it is.

    ``drive``: gain before a tanh, 1 is mild. ``tilt``: dB per octave about 1 kHz. ``low_pass``, ``high_pass``: Hz,
    24 dB per octave. ``attack``: seconds of a rise from silence. ``decay``: seconds to -60 dB. ``tremolo``: (Hz, depth
    0-1).
    """

    drive: float | None = None
    tilt: float | None = None
    low_pass: float | None = None
    high_pass: float | None = None
    attack: float | None = None
    decay: float | None = None
    tremolo: tuple[float, float] | None = None


def draw_shape(rng: np.random.Generator) -> Shape:
    """One to three changes at random, each within what instruments and synthesisers do."""
    drawn: dict[str, Any] = {
        "drive": float(np.exp(rng.uniform(np.log(0.5), np.log(8.0)))),
        "tilt": float(rng.uniform(-6.0, 6.0)),
        "low_pass": float(np.exp(rng.uniform(np.log(400.0), np.log(8_000.0)))),
        "high_pass": float(np.exp(rng.uniform(np.log(150.0), np.log(1_500.0)))),
        "attack": float(np.exp(rng.uniform(np.log(0.005), np.log(0.6)))),
        "decay": float(np.exp(rng.uniform(np.log(0.15), np.log(4.0)))),
        "tremolo": (float(rng.uniform(2.0, 12.0)), float(rng.uniform(0.1, 0.9))),
    }
    share = {
        "tilt": 3.0,
        "low_pass": 3.0,
        "attack": 3.0,
        "decay": 3.0,
        "drive": 2.0,
        "high_pass": 1.0,
        "tremolo": 1.0,
    }
    names = list(share)
    weights = np.array(list(share.values())) / sum(share.values())
    chosen = rng.choice(names, size=int(rng.integers(1, 4)), replace=False, p=weights)
    return Shape(**{name: drawn[name] for name in chosen})


def apply(audio: Array, shape: Shape, sample_rate: int) -> npt.NDArray[np.float32]:
    """``audio`` [samples], starting at its onset -> the same length, float32, peak at 1 (zeros stay zeros)."""
    sound = np.asarray(audio, dtype=np.float64)
    time = np.arange(sound.size) / sample_rate
    if shape.drive is not None:
        loud = max(float(np.sqrt(np.mean(np.square(sound)))), 1e-9)
        sound = np.tanh(sound * (_LEVEL / loud) * shape.drive)
    if shape.tilt is not None or shape.low_pass is not None or shape.high_pass is not None:
        sound = _filtered(sound, shape, sample_rate)
    if shape.decay is not None:
        sound = sound * 10.0 ** (-3.0 * time / shape.decay)
    if shape.attack is not None:
        # A raised cosine, as amplitude.
        sound = sound * (0.5 - 0.5 * np.cos(np.pi * np.clip(time / shape.attack, 0.0, 1.0)))
    if shape.tremolo is not None:
        rate, depth = shape.tremolo
        sound = sound * (1.0 - depth * (0.5 - 0.5 * np.cos(2.0 * np.pi * rate * time)))
    return (sound / max(float(np.abs(sound).max(initial=0.0)), 1e-9)).astype(np.float32)


def _filtered(sound: Array, shape: Shape, sample_rate: int) -> Array:
    hertz = np.maximum(np.fft.rfftfreq(2 * sound.size, 1.0 / sample_rate), 20.0)
    decibels = np.zeros_like(hertz)
    if shape.tilt is not None:
        decibels += shape.tilt * np.log2(hertz / 1_000.0)
    if shape.low_pass is not None:
        decibels -= 24.0 * np.maximum(0.0, np.log2(hertz / shape.low_pass))
    if shape.high_pass is not None:
        decibels -= 24.0 * np.maximum(0.0, np.log2(shape.high_pass / hertz))
    spectrum = np.fft.rfft(sound, 2 * sound.size) * 10.0 ** (decibels / 20.0)
    return np.asarray(np.fft.irfft(spectrum)[: sound.size])
