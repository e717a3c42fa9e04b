"""How good a codec is: what it changes in spectra, and whether the pitch survives, both through the decoded sound."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from timbrel.codec.spectrum import log_magnitude, log_spectral_distance

CENTS_KEPT = 50.0


class TurnsBack(Protocol):
    """What is judged: a codec or a yardstick."""

    def encode(self, audio: np.ndarray) -> np.ndarray: ...

    def decode(self, embedding: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecQuality:
    """Over a set of notes. ``lsd_db``: mean log-spectral distance of decoded sound to the original, -90 dB soft floor.

    ``sounding_lsd_db``: the same over frames within 60 dB of their note's loudest frame. ``f0_kept``: the share of the
    voiced originals whose decoded F0 lies within 50 cents. ``decode_seconds``: median per note.
    """

    notes: int
    voiced: int
    lsd_db: float
    sounding_lsd_db: float
    f0_kept: float
    decode_seconds: float

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Plain values by name, for a record."""
        return {
            f"{prefix}notes": float(self.notes),
            f"{prefix}voiced": float(self.voiced),
            f"{prefix}lsd_db": self.lsd_db,
            f"{prefix}sounding_lsd_db": self.sounding_lsd_db,
            f"{prefix}f0_kept": self.f0_kept,
            f"{prefix}decode_seconds": self.decode_seconds,
        }


def evaluate(
    codec: TurnsBack, notes: Iterable[np.ndarray], midi: Callable[[np.ndarray], float]
) -> CodecQuality:
    """Run every note (float32 [samples], 24 kHz) through ``codec``; ``midi(audio)`` measures F0, nan when unvoiced."""
    distances: list[float] = []
    sounding: list[float] = []
    seconds: list[float] = []
    voiced = kept = 0
    for audio in notes:
        embedding = codec.encode(audio)
        began = time.perf_counter()
        decoded = codec.decode(embedding)
        seconds.append(time.perf_counter() - began)
        before, after = log_magnitude(audio), log_magnitude(decoded)
        distances.append(log_spectral_distance(before, after))
        loudest = before.max(axis=1)
        heard = loudest > loudest.max() - 60.0
        sounding.append(log_spectral_distance(before[heard], after[heard]))
        original = midi(audio)
        if math.isfinite(original):
            voiced += 1
            # A decoded note that is no longer voiced has nan here, which is not within 50 cents.
            kept += abs(midi(decoded) - original) * 100.0 <= CENTS_KEPT
    return CodecQuality(
        notes=len(distances),
        voiced=voiced,
        lsd_db=_mean(distances),
        sounding_lsd_db=_mean(sounding),
        f0_kept=kept / voiced if voiced else math.nan,
        decode_seconds=float(np.median(seconds)) if seconds else math.nan,
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
