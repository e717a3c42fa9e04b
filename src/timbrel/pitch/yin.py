"""YIN: a fundamental frequency from a signal's own periodicity, in numpy.

A. de Cheveigné and H. Kawahara, "YIN, a fundamental frequency estimator for speech and music", Journal of the
Acoustical Society of America 111 (2002). With a window of W samples, the difference at lag t and its form
normalised by the cumulative mean are

    d(t)  = sum over j < W of (x[j] - x[j + t])^2                                         (equation 6)
    d'(t) = d(t) * t / (d(1) + … + d(t)),    d'(0) = 1                                    (equation 8)

and the period is the first dip of d' below a threshold (step 4), refined by a parabola (step 5). d' at the
dip is the aperiodicity: about 0 for a periodic frame, about 1 for noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOWEST_HZ = 20.0
HIGHEST_HZ = 5_000.0
# A frame holds three of the longest periods: a window of two, and one more to slide over.
FRAME_SECONDS = 3.0 / LOWEST_HZ
HOP_SECONDS = 0.04
THRESHOLD = 0.1
# Short periods are only a few samples long; they are measured over several, up to this many samples.
REFINE_UP_TO = 96


@dataclass(frozen=True, slots=True)
class YinFrames:
    """Per frame: ``f0_hz`` (nan where no dip is deep enough), ``aperiodicity``, mean ``power``; [frames]."""

    f0_hz: np.ndarray
    aperiodicity: np.ndarray
    power: np.ndarray


def track(audio: np.ndarray, sample_rate: int) -> YinFrames:
    """F0 of every frame of ``audio`` [samples]; shorter audio makes one frame, with a higher lowest F0."""
    length = min(len(audio), round(FRAME_SECONDS * sample_rate))
    max_lag = length // 3
    if max_lag < 4:
        return YinFrames(np.empty(0), np.empty(0), np.empty(0))
    window = length - max_lag
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64, copy=False), length)
    frames = frames[:: max(1, round(HOP_SECONDS * sample_rate))]
    frames = frames - frames.mean(axis=1, keepdims=True)
    normalised = _normalise(_difference(frames, window, max_lag))
    min_lag = max(2, int(sample_rate / HIGHEST_HZ))
    found = [_period(row, min_lag) for row in normalised]
    f0 = np.array([sample_rate / period if period else np.nan for period, _ in found])
    depth = np.array([depth for _, depth in found])
    return YinFrames(f0_hz=f0, aperiodicity=np.clip(depth, 0.0, 1.0), power=np.mean(frames**2, axis=1))


def _difference(frames: np.ndarray, window: int, max_lag: int) -> np.ndarray:
    """d(t) for t = 0 … max_lag, [frames, samples] -> [frames, max_lag + 1], by one FFT product per frame."""
    size = 1 << (frames.shape[1] + window - 1).bit_length()
    head = np.fft.rfft(frames[:, :window], size)
    correlation = np.fft.irfft(np.conj(head) * np.fft.rfft(frames, size), size)[:, : max_lag + 1]
    energy = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(frames**2, axis=1)], axis=1)
    lags = np.arange(max_lag + 1)
    sliding = energy[:, lags + window] - energy[:, lags]
    return np.maximum(sliding[:, :1] + sliding - 2.0 * correlation, 0.0)


def _normalise(difference: np.ndarray) -> np.ndarray:
    lags = np.arange(1, difference.shape[1])
    total = np.cumsum(difference[:, 1:], axis=1)
    normalised = np.ones_like(difference)
    # A frame of silence has no difference at any lag: it counts as aperiodic, not as perfectly periodic.
    np.divide(difference[:, 1:] * lags, total, out=normalised[:, 1:], where=total > 1e-12)
    return normalised


def _period(row: np.ndarray, min_lag: int) -> tuple[float, float]:
    """One frame's period in samples, and its aperiodicity; period 0 when no dip is below the threshold."""
    below = np.flatnonzero(row[min_lag:-1] < THRESHOLD)
    if not len(below):
        return 0.0, float(row[min_lag:].min())
    lag = int(below[0]) + min_lag
    while lag + 1 < len(row) and row[lag + 1] < row[lag]:
        lag += 1
    return _refine(row, lag) if lag + 1 < len(row) else (0.0, float(row[lag]))


def _refine(row: np.ndarray, lag: int) -> tuple[float, float]:
    """A parabola through the dip at ``lag``, then through those at 2, 4, 8 … periods: period and depth.

    A whole number of samples can miss the bottom of a narrow dip; one of the multiples comes closer to it.
    """
    period = lag + _vertex(row, lag)
    depth = float(row[lag])
    multiple = 1
    while 2 * multiple * period < min(REFINE_UP_TO, len(row) - 3):
        multiple *= 2
        centre = round(multiple * period)
        best = centre - 1 + int(np.argmin(row[centre - 1 : centre + 2]))
        period = (best + _vertex(row, best)) / multiple
        depth = min(depth, float(row[best]))
    return period, depth


def _vertex(row: np.ndarray, lag: int) -> float:
    """Where a parabola through row[lag - 1 … lag + 1] is lowest, relative to ``lag``: -0.5 … 0.5."""
    left, centre, right = row[lag - 1 : lag + 2]
    curvature = left - 2.0 * centre + right
    return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature > 0 else 0.0
