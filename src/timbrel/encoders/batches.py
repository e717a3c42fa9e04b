"""Training notes as the network sees them, and the batches that make its task hard enough.

Mel powers are computed once. Besides every instrument as it is, the set holds it once more played faster or
slower by a fixed ratio: its formants move, its noises and its envelope too, so it is another instrument, and
a near one. Searching is gated by pitch, so a good part of each batch is notes near one pitch: there, pitch
tells nothing, and the timbre has to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor

from timbrel.encoders import filterbank
from timbrel.encoders.frontend import SAMPLE_RATE, clip
from timbrel.encoders.mel import PowerMel

_NEAR = 1.0  # semitones: the width of the search's pitch gate
_SEMITONES = (2.5, 5.0)  # how far a resampled instrument is from its original
_BATCH = 64
_SMALLEST = 1e-9  # -90 dB, far below the floor of the network's input


@dataclass(frozen=True, slots=True)
class Sounds:
    """Notes to train on.

    ``log_power``: log10 of the mel powers, float16 ``[n, 80, 120]``; ``instrument``: int64 ``[n]``;
    ``pitch``: MIDI ``[n]``. ``target``: what a teacher says of each, float32 ``[n, d]``, where there is one.
    """

    log_power: np.ndarray
    instrument: np.ndarray
    pitch: np.ndarray
    target: np.ndarray | None = None

    def power(self, rows: np.ndarray) -> Tensor:
        """Mel powers of ``rows``, float32 ``[rows, 80, 120]``."""
        return torch.pow(10.0, torch.from_numpy(self.log_power[rows].astype(np.float32)))


def join(parts: Sequence[Sounds]) -> Sounds:
    """Several sets as one; their instruments stay apart."""
    offsets = np.cumsum([0] + [int(part.instrument.max(initial=-1)) + 1 for part in parts[:-1]])
    return Sounds(
        np.concatenate([part.log_power for part in parts]),
        np.concatenate([part.instrument + offset for part, offset in zip(parts, offsets, strict=True)]),
        np.concatenate([part.pitch for part in parts]),
    )


def prepare(
    audio: Callable[[int], np.ndarray],
    instruments: np.ndarray,
    pitches: np.ndarray,
    *,
    resampled: bool = False,
    seed: int = 0,
) -> Sounds:
    """Mel powers of notes. ``audio(i)`` gives note ``i`` as float ``[samples]`` at 24 kHz.

    ``instruments`` and ``pitches`` (MIDI) name each note's. With ``resampled`` every instrument is played
    2.5-5 semitones higher or lower, by its own ratio.
    """
    _, labels = np.unique(instruments, return_inverse=True)
    rng = np.random.default_rng(seed)
    count = int(labels.max(initial=-1)) + 1
    semitones = rng.uniform(*_SEMITONES, count) * rng.choice([-1.0, 1.0], count) * resampled
    log_power = np.empty((len(labels), filterbank.BANDS, filterbank.FRAMES), np.float16)
    mel = PowerMel()
    for start in range(0, len(labels), _BATCH):
        rows = range(start, min(start + _BATCH, len(labels)))
        clips = np.stack([clip(_faster(audio(row), float(semitones[labels[row]]))) for row in rows])
        log_power[start : start + len(rows)] = _log_power(mel, clips)
    return Sounds(log_power, labels.astype(np.int64), np.asarray(pitches, np.float64) + semitones[labels])


@torch.no_grad()
def _log_power(mel: PowerMel, clips: np.ndarray) -> np.ndarray:
    return torch.log10(mel(torch.from_numpy(clips)).clamp_min(_SMALLEST)).half().numpy()


def _faster(audio: np.ndarray, semitones: float) -> np.ndarray:
    if semitones == 0.0:
        return audio
    return np.asarray(
        soxr.resample(audio, SAMPLE_RATE * 2.0 ** (semitones / 12.0), SAMPLE_RATE, quality="MQ")
    )


def some_of_each(instruments: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of at most ``most`` notes of each instrument, chosen at random, in ascending order."""
    shuffled = np.random.default_rng(seed).permutation(len(instruments))
    order = shuffled[np.argsort(instruments[shuffled], kind="stable")]
    _, starts, counts = np.unique(instruments[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return np.sort(order[rank < most])


class Sampler:
    """Draws batches: two different notes of each of ``size`` instruments (one note twice where it has only one)."""

    def __init__(self, sounds: Sounds, *, size: int, near_pitch_share: float) -> None:
        self._sounds = sounds
        order = np.argsort(sounds.instrument, kind="stable")
        names, starts = np.unique(sounds.instrument[order], return_index=True)
        self._rows = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
        self._names = names
        self.size = min(size, len(names))
        self._near = round(self.size * near_pitch_share)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Rows ``[2 size]``: first notes, then their partners in the same order.

        The first ``near_pitch_share`` of the first notes lie within a semitone of one pitch, as far as there
        are enough such instruments.
        """
        firsts: dict[int, int] = {}
        if self._near:
            pitch = self._sounds.pitch
            centre = pitch[rng.integers(len(pitch))]
            close = rng.permutation(np.flatnonzero(np.abs(pitch - centre) <= _NEAR))
            for row in close:
                firsts.setdefault(int(self._sounds.instrument[row]), int(row))
                if len(firsts) == self._near:
                    break
        for name in rng.permutation(self._names):
            if len(firsts) == self.size:
                break
            if name not in firsts:
                firsts[int(name)] = int(rng.choice(self._rows[int(name)]))
        partners = [self._partner(name, row, rng) for name, row in firsts.items()]
        return np.array(list(firsts.values()) + partners)

    def _partner(self, name: int, row: int, rng: np.random.Generator) -> int:
        rows = self._rows[name]
        others = rows[rows != row]
        return int(rng.choice(others)) if others.size else row
