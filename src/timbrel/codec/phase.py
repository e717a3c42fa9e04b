"""Phase from magnitude, for sounds that are mostly partials.

Two steps. First a guess in one pass (single-pass spectrogram inversion, Beauregard, Harish and Wyse 2015): every local
maximum is a partial, its frequency is interpolated between the bins, and its phase is carried on from the frame before;
bins around it follow it. Then a few iterations of fast Griffin-Lim (Perraudin, Balazs and Søndergaard 2013), started
from that guess, mend attacks, noise and beats. The guess is what makes few iterations enough. Nothing is random.
"""

from __future__ import annotations

import numpy as np

from timbrel.codec.spectrum import FFT_SIZE, HOP, istft, stft, to_magnitude, window_energy

ITERATIONS = 8
MOMENTUM = 0.99
FADE_IN = 48  # 2 ms: an attack survives it, a cut through a waveform does not click
FADE_OUT = 120  # 5 ms


def initial_phase(magnitude: np.ndarray) -> np.ndarray:
    """Phase guess in radians for ``magnitude`` [frames, bins]: float32 [frames, bins]."""
    count, bins = magnitude.shape
    log = np.log(np.maximum(magnitude, np.float32(1e-6)))
    inner = log[:, 1:-1]
    is_peak = np.zeros(magnitude.shape, dtype=bool)
    is_peak[:, 1:-1] = (inner > log[:, :-2]) & (inner >= log[:, 2:]) & (magnitude[:, 1:-1] > 1e-6)

    # The parabola through three log magnitudes has its top at this offset from the middle bin, in bins.
    offset = np.zeros(magnitude.shape, dtype=np.float32)
    curvature = log[:, :-2] - 2.0 * inner + log[:, 2:]
    slope = 0.5 * (log[:, :-2] - log[:, 2:])
    np.divide(slope, curvature, out=offset[:, 1:-1], where=np.abs(curvature) > 1e-6)
    np.clip(offset, -0.5, 0.5, out=offset)
    advance = (2.0 * np.pi * HOP / FFT_SIZE) * (np.arange(bins, dtype=np.float32) + offset)

    owner = _nearest_peak(is_peak, log)
    alternate = np.pi * (np.arange(bins) % 2).astype(np.float32)
    phase = np.zeros(magnitude.shape, dtype=np.float32)
    carried = _spread_phase(bins)  # phase at each bin relative to the window's centre
    for t in range(count):
        carried = (carried + advance[t])[owner[t]]
        np.remainder(carried, 2.0 * np.pi, out=carried)
        phase[t] = carried
    # A window centred on its frame turns each bin by pi against its neighbour.
    return phase + alternate


def _spread_phase(bins: int) -> np.ndarray:
    """Where partials start: phases far from each other, so that they do not add up to a pulse (which would clip)."""
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    return np.remainder(np.pi * golden * np.arange(bins, dtype=np.float64) ** 2, 2.0 * np.pi).astype(
        np.float32
    )


def _nearest_peak(is_peak: np.ndarray, log: np.ndarray) -> np.ndarray:
    """For each bin the peak it belongs to, int32 [frames, bins]: regions meet half way between two peaks."""
    bins = is_peak.shape[1]
    index = np.arange(bins, dtype=np.int32)
    below = np.maximum.accumulate(np.where(is_peak, index, -bins), axis=1)
    above = np.minimum.accumulate(np.where(is_peak, index, 2 * bins)[:, ::-1], axis=1)[:, ::-1]
    owner = np.where(index - below <= above - index, below, above)
    # A frame without any peak (silence) leaves every bin to itself.
    return np.where((owner < 0) | (owner >= bins), index, owner)


def griffin_lim(magnitude: np.ndarray, phase: np.ndarray, iterations: int) -> np.ndarray:
    """Fast Griffin-Lim from ``phase`` (both [frames, bins]): float32 [frames * 320]."""
    energy = window_energy(magnitude.shape[0])
    target = magnitude.astype(np.float32, copy=False)
    spectra = target * np.exp(1j * phase).astype(np.complex64)
    audio = istft(spectra, energy)
    previous = None
    for _ in range(iterations):
        consistent = stft(audio)
        pushed = (
            consistent if previous is None else consistent + np.float32(MOMENTUM) * (consistent - previous)
        )
        previous = consistent
        size = np.abs(pushed)
        np.maximum(size, np.float32(1e-12), out=size)
        pushed *= target / size
        audio = istft(pushed, energy)
    return audio


def reconstruct(log_magnitude: np.ndarray, *, iterations: int = ITERATIONS) -> np.ndarray:
    """Sound with this log magnitude: [frames, 1025] dB -> float32 [frames * 320] at 24 kHz.

    The first 2 ms and the last 5 ms are faded, so that a note never starts or ends with a click; a sound whose
    rebuilt phases add up to more than full scale is turned down as a whole.
    """
    magnitude = to_magnitude(log_magnitude)
    if magnitude.shape[0] == 0:
        return np.zeros(0, dtype=np.float32)
    audio = griffin_lim(magnitude, initial_phase(magnitude), iterations)
    audio[:FADE_IN] *= _half_hann(FADE_IN)
    audio[-FADE_OUT:] *= _half_hann(FADE_OUT)[::-1]
    peak = float(np.abs(audio).max())
    return audio if peak <= 1.0 else audio / np.float32(peak)


def _half_hann(samples: int) -> np.ndarray:
    """A rise from 0 to nearly 1 over ``samples`` samples, float32."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / samples)).astype(np.float32)
