"""What a student learns: the style of a published network, and cepstra, of a sound as it is without any disturbance.

    clip ─► cut after its last sound ─► EfficientAT ─► mean, deviation of every channel of 17 blocks ─► standardised,
                                   │                   blocks of equal weight ─► principal components ─┐
                                   └─► MFCC: mean, deviation ─► standardised ──────────────────────────┴─► target

Cut, because a pause after a short note is no part of its timbre. Statistics of all blocks, equally weighted, agreed
best with people's ratings among this network's vectors; that cosines survive the principal components is tested by
the share of variance that they keep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr

from timbrel.encoders import efficientat, efficientat_mel
from timbrel.encoders.baselines import mfcc
from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE

_BLOCK = 480  # 20 ms
_SILENT_DB = -60.0
_SHORTEST = 4_800  # 0.2 s: the network wants some frames


@dataclass(frozen=True, slots=True)
class RawTarget:
    """Of n sounds: ``style`` [n, 1792] and ``cepstrum`` [n, 80], as computed."""

    style: np.ndarray
    cepstrum: np.ndarray


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets [n, components + 80]; both parts have a mean square length of 1.

    ``kept``: share of the style's variance that its components hold.
    """

    values: np.ndarray
    components: int
    kept: float


def without_silence(clip: np.ndarray) -> np.ndarray:
    """The clip up to its last 20 ms within 60 dB of its loudest, 0.2 s at least."""
    whole = len(clip) // _BLOCK * _BLOCK
    power = np.square(clip[:whole], dtype=np.float64).reshape(-1, _BLOCK).mean(axis=1)
    sounding = np.flatnonzero(power > power.max() * 10.0 ** (_SILENT_DB / 10.0))
    end = (int(sounding[-1]) + 1) * _BLOCK if len(sounding) else 0
    return clip[: max(end, _SHORTEST)]


def raw_target(teacher: efficientat.EfficientAt, clips: np.ndarray) -> RawTarget:
    """Clips [b, 72000] as ``frontend.clip`` makes them, one by one: their lengths differ once they are cut."""
    styles, cepstra = [], []
    for clip in clips:
        heard = without_silence(clip)
        resampled = soxr.resample(heard, SAMPLE_RATE, efficientat_mel.SAMPLE_RATE)
        _, style = efficientat.vectors(teacher, efficientat_mel.picture(resampled[None]))
        styles.append(style[0])
        # The cepstrum's frames are weighted by nothing: those of silence are left out the same way.
        cepstra.append(mfcc(heard[None])[0])
    return RawTarget(np.stack(styles), np.stack(cepstra))


def fit_targets(raw: RawTarget, *, channels: tuple[int, ...], components: int) -> Targets:
    """``channels``: of the teacher's blocks, in order; each gives as many means, then as many deviations."""
    weight = np.concatenate([np.full(2 * count, (2.0 * count) ** -0.5) for count in channels])
    style = _standardised(raw.style) * weight
    # Principal axes of the covariance [1792, 1792]: far smaller than the data.
    variance, axes = np.linalg.eigh(style.T @ style / len(style))
    chosen = np.argsort(variance)[::-1][:components]
    kept = float(variance[chosen].sum() / variance.sum())
    parts = [style @ axes[:, chosen], _standardised(raw.cepstrum)]
    values = np.concatenate([part / np.sqrt(np.square(part).sum(axis=1).mean()) for part in parts], axis=1)
    return Targets(values.astype(np.float32), components, kept)


def _standardised(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6)


assert CLIP_SAMPLES % _BLOCK == 0
