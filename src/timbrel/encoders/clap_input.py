"""What LAION's CLAP hears: ten seconds at 48 kHz, of 16-bit numbers.

Shorter sounds are repeated for as long as they fit in whole, then followed by zeros: so the package does, and so the
networks were trained. Longer ones it crops at random; here they are always their first ten seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SAMPLE_RATE = 48_000
SAMPLES = 480_000
_FULL_SCALE = np.float32(32_767.0)


def ten_seconds(audio: np.ndarray) -> np.ndarray:
    """float32 [b, samples] at 48 kHz, at least one sample -> [b, 480000]."""
    quantised = (np.clip(audio[:, :SAMPLES], -1.0, 1.0) * _FULL_SCALE).astype(np.int16)
    whole = np.tile(quantised / _FULL_SCALE, SAMPLES // quantised.shape[1])
    return np.pad(whole, ((0, 0), (0, SAMPLES - whole.shape[1])))


def samples(audio: np.ndarray) -> Mapping[str, np.ndarray]:
    """What CLAP's model takes of audio float32 [b, samples] at 48 kHz: ``audio`` [b, 480000]."""
    return {"audio": ten_seconds(audio)}
