"""What is kept: patches that sound at a steady distance from their key, and that sound like no other.

The MIDI key of a patch is often not the pitch that sounds. ``sounding_offset`` finds the distance between the
two; ``Duplicates`` compares patches by what a listener gets, a mel spectrogram, never by their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from timbrel.notes.noteset import SAMPLE_RATE

OFFSET_TOLERANCE = 0.5  # semitones
FLOOR_DB = 60.0  # below the loudest cell of a picture
_FFT = 1024
_HOP = 512
_BANDS = 40
_FRAMES_KEPT = 24


def sounding_offset(
    keys: Sequence[int], f0_midi: Sequence[float], *, share: float, tolerance: float = OFFSET_TOLERANCE
) -> float | None:
    """Semitones from key to sounding pitch, or None when they are not constant.

    Constant means: at least ``share`` of the renders lie within ``tolerance`` of their median distance; unvoiced
    renders (nan) count against it.
    """
    distance = np.asarray(f0_midi, dtype=np.float64) - np.asarray(keys, dtype=np.float64)
    voiced = distance[np.isfinite(distance)]
    if not len(voiced) or len(voiced) < share * len(distance):
        return None
    median = float(np.median(voiced))
    agreeing = np.abs(voiced - median) <= tolerance
    if agreeing.sum() < share * len(distance):
        return None
    return float(np.median(voiced[agreeing]))


@lru_cache(maxsize=1)
def _mel_bank() -> npt.NDArray[np.float32]:
    """Triangular mel filters [513, 40] from 40 Hz to 11 kHz (HTK scale, 2595 log10(1 + f / 700))."""
    edges_mel = np.linspace(2595 * math.log10(1 + 40 / 700), 2595 * math.log10(1 + 11_000 / 700), _BANDS + 2)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)
    frequencies = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling))
    # Narrow low filters fall between two bins: each takes the nearest one at least.
    for band, centre in enumerate(edges[1:-1]):
        if bank[:, band].sum() < 0.5:
            bank[int(np.argmin(np.abs(frequencies[:, 0] - centre))), band] = 1.0
    return bank.astype(np.float32)


def picture(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Mel spectrogram [24, 40] of a note [96000] in dB, 0 to ``FLOOR_DB`` above the floor.

    Frames are spaced evenly in the square root of time: attacks are told apart better than tails.
    """
    times = (np.linspace(0, 1, _FRAMES_KEPT) ** 2 * (len(pcm) - _FFT)).astype(int)
    frames = np.stack([pcm[at : at + _FFT] for at in times]).astype(np.float32) / 32768.0
    power = np.abs(np.fft.rfft(frames * np.hanning(_FFT).astype(np.float32), axis=1)) ** 2
    decibels = 10 * np.log10(power @ _mel_bank() + 1e-12)
    return np.clip(decibels - (decibels.max() - FLOOR_DB), 0, None).astype(np.float32)


def distance_db(one: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean level difference in dB [n] between picture ``one`` [...] and ``others`` [n, ...].

    Only cells in which either sounds (lies above the floor) count: shared silence makes nothing alike.
    """
    axes = tuple(range(1, others.ndim))
    counted = (one > 0) | (others > 0)
    difference = np.abs(others - one).sum(axis=axes)
    result: npt.NDArray[np.float32] = difference / np.maximum(counted.sum(axis=axes), 1)
    return result


class Duplicates:
    """Remembers the pictures of kept patches and tells when a further one sounds like one of them.

    Patches are compared at the same keys, so all pictures must come from the same list of keys.
    """

    def __init__(self, threshold_db: float) -> None:
        self._threshold = threshold_db
        self._names: list[str] = []
        self._pictures: list[npt.NDArray[np.float32]] = []

    def check(self, name: str, notes: Sequence[npt.NDArray[np.int16]]) -> str | None:
        """The kept patch that ``notes`` sound like (nearer than the threshold), or None; then it is kept."""
        image = np.stack([picture(note) for note in notes])
        if self._pictures:
            distances = distance_db(image, np.stack(self._pictures))
            nearest = int(np.argmin(distances))
            if distances[nearest] < self._threshold:
                return self._names[nearest]
        self._names.append(name)
        self._pictures.append(image)
        return None

    def nearest(self) -> npt.NDArray[np.float32]:
        """Distance in dB of each kept patch to its nearest other one [n]."""
        if len(self._pictures) < 2:
            return np.full(len(self._pictures), np.inf, dtype=np.float32)
        everything = np.stack(self._pictures)
        best = np.empty(len(everything), dtype=np.float32)
        for index, image in enumerate(everything):
            distances = distance_db(image, everything)
            distances[index] = np.inf
            best[index] = distances.min()
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct:
    """How far apart the kept patches lie: quantiles of the nearest distance, and how many lie beyond it."""

    median_db: float
    least_db: float
    beyond_2_db: int
    beyond_3_db: int


def summarise(nearest: npt.NDArray[np.float32]) -> Distinct:
    """Figures for the report."""
    if not len(nearest) or not np.isfinite(nearest).all():
        return Distinct(median_db=0.0, least_db=0.0, beyond_2_db=0, beyond_3_db=0)
    return Distinct(
        median_db=round(float(np.median(nearest)), 2),
        least_db=round(float(nearest.min()), 2),
        beyond_2_db=int((nearest >= 2).sum()),
        beyond_3_db=int((nearest >= 3).sum()),
    )
