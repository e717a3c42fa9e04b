"""Phase from magnitude, for sounds that are mostly partials.

Two steps. First a guess in one pass (single-pass spectrogram inversion, Beauregard, Harish and Wyse 2015): every local
maximum is a partial, its frequency is interpolated between the bins and averaged over 120 ms, and its phase is carried
on from the frame before; bins around it follow it. Then a few iterations of fast Griffin-Lim (Perraudin, Balazs and
Søndergaard 2013), started from that guess, mend attacks, noise and beats. The guess is what makes few iterations
enough. Nothing is random.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from timbrel.codec.spectrum import FFT_SIZE, FULL_SCALE, HOP, WINDOW, to_magnitude, window_energy

ITERATIONS = 16
MOMENTUM = 0.99
STEADY_FRAMES = 9  # 120 ms
FADE_IN = 48  # 2 ms: an attack survives it, a cut through a waveform does not click
FADE_OUT = 120  # 5 ms
LOOK_AHEAD = 120  # 5 ms, of the limiter


def initial_phase(magnitude: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Phase guess in radians for ``magnitude`` [frames, bins]: float32 [frames, bins].

    ``known`` [k <= frames, bins]: the phases of the first frames, where a sound has them; the guess carries them on.
    """
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
    offset = _steady(offset, is_peak)
    # Phases are counted in turns here: their whole part is dropped at every frame, and float32 stays exact enough.
    advance = np.float32(HOP / FFT_SIZE) * (np.arange(bins, dtype=np.float32) + offset)

    owner = _nearest_peak(is_peak, log)
    turns = np.empty(magnitude.shape, dtype=np.float32)
    carried = _spread_phase(bins)  # at each bin, relative to the window's centre
    begin = 0 if known is None else len(known)
    if known is not None and begin:
        turns[:begin] = known / np.float32(2.0 * np.pi)
        turns[:begin, 1::2] -= np.float32(0.5)
        carried = turns[begin - 1]
    for t in range(begin, count):
        carried = np.take(carried + advance[t], owner[t], out=turns[t], mode="clip")
        carried -= np.floor(carried)
    # A window centred on its frame turns each bin by half a turn against its neighbour.
    turns[:, 1::2] += np.float32(0.5)
    turns *= np.float32(2.0 * np.pi)
    return turns


def _steady(offset: np.ndarray, is_peak: np.ndarray) -> np.ndarray:
    """``offset`` [frames, bins] of peaks, averaged over the frames around in which the same bin is a peak, too.

    A partial's frequency moves less from frame to frame than a decoded magnitude trembles; what trembles in frequency
    comes out as noise, and hides the period of a low sound.
    """
    peak = is_peak.astype(np.float32)
    total = ndimage.uniform_filter1d(offset * peak, STEADY_FRAMES, axis=0, mode="constant")
    count = ndimage.uniform_filter1d(peak, STEADY_FRAMES, axis=0, mode="constant")
    return np.where(is_peak, total / np.maximum(count, np.float32(1e-6)), offset)


def _spread_phase(bins: int) -> np.ndarray:
    """Where partials start, in turns: far from each other, so that they do not add up to a pulse (which would clip)."""
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    return np.remainder(0.5 * golden * np.arange(bins, dtype=np.float64) ** 2, 1.0).astype(np.float32)


def _nearest_peak(is_peak: np.ndarray, log: np.ndarray) -> np.ndarray:
    """For each bin the peak it belongs to, int32 [frames, bins]: regions meet half way between two peaks."""
    bins = is_peak.shape[1]
    index = np.arange(bins, dtype=np.int32)
    below = np.maximum.accumulate(np.where(is_peak, index, -bins), axis=1)
    above = np.minimum.accumulate(np.where(is_peak, index, 2 * bins)[:, ::-1], axis=1)[:, ::-1]
    owner = np.where(index - below <= above - index, below, above)
    # A frame without any peak (silence) leaves every bin to itself.
    return np.where((owner < 0) | (owner >= bins), index, owner)


def griffin_lim(magnitude: np.ndarray, phase: np.ndarray, iterations: int, *, known: int = 0) -> np.ndarray:
    """Fast Griffin-Lim from ``phase`` (both [frames, bins]): float32 [frames * 320].

    The phases of the first ``known`` frames are no guess and stay as they are: a sound that goes on differently from
    some frame on is, before that frame, the sound it was.
    The same as ``istft`` and ``stft`` in turn, but every array is made once and worked on in place: at these sizes
    (2.5 MB a spectrogram) most of the time would go into new memory, not into transforms.
    """
    count = len(magnitude)
    target = np.asarray(magnitude, dtype=np.float32) * FULL_SCALE
    pushed = np.empty(target.shape, dtype=np.complex64)
    np.multiply(target, np.cos(phase), out=pushed.real)
    np.multiply(target, np.sin(phase), out=pushed.imag)
    held = pushed[:known].copy()
    synthesis = _Synthesis(count)
    windowed = np.empty((count, FFT_SIZE), dtype=np.float32)
    size, square = np.empty_like(target), np.empty_like(target)
    audio = synthesis.add_up(pushed)
    previous = None
    for _ in range(iterations):
        np.multiply(synthesis.windows, WINDOW, out=windowed)
        consistent = fft.rfft(windowed, axis=-1)
        if previous is None:
            pushed[:] = consistent
        else:
            # consistent + momentum * (consistent - previous), over the memory of the one before the last
            np.multiply(previous, np.float32(-MOMENTUM), out=pushed)
            np.multiply(consistent, np.float32(1.0 + MOMENTUM), out=previous)
            pushed += previous
        previous = consistent
        real, imaginary = pushed.real, pushed.imag
        np.multiply(real, real, out=size)
        np.multiply(imaginary, imaginary, out=square)
        size += square
        size += np.float32(1e-18)
        np.sqrt(size, out=size)
        np.divide(target, size, out=size)
        real *= size
        imaginary *= size
        pushed[:known] = held
        audio = synthesis.add_up(pushed)
    return audio.copy()


class _Synthesis:
    """The inverse transform of ``count`` frames into one buffer, whose overlapping windows it also shows."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._begin = (FFT_SIZE - HOP) // 2
        self._blocks = np.zeros((count + -(-FFT_SIZE // HOP), HOP), dtype=np.float32)
        self._buffer = self._blocks.reshape(-1)
        self._inside = self._buffer[self._begin : self._begin + count * HOP]
        self._share = np.float32(1.0) / window_energy(count)
        # Frames [count, 2048] as the analysis sees them: silence before the first sample and after the last.
        self.windows = np.lib.stride_tricks.sliding_window_view(self._buffer, FFT_SIZE)[::HOP][:count]

    def add_up(self, spectra: np.ndarray) -> np.ndarray:
        """Spectra [count, 1025] -> the samples, a view that the next call overwrites: float32 [count * 320]."""
        frames = fft.irfft(spectra, n=FFT_SIZE, axis=-1)
        frames *= WINDOW
        self._blocks[:] = 0.0
        for block, start in enumerate(range(0, FFT_SIZE, HOP)):
            part = frames[:, start : start + HOP]
            self._blocks[block : block + self._count, : part.shape[1]] += part
        self._buffer[: self._begin] = 0.0
        self._buffer[self._begin + self._count * HOP :] = 0.0
        self._inside *= self._share
        return self._inside


def reconstruct(
    log_magnitude: np.ndarray, *, known: np.ndarray | None = None, iterations: int = ITERATIONS
) -> np.ndarray:
    """Sound with this log magnitude: [frames, 1025] dB -> float32 [frames * 320] at 24 kHz.

    ``known`` [k <= frames, 1025]: phases of the first frames. With all of them, of the spectra of a sound, it is that
    sound.
    The first 2 ms and the last 5 ms are faded, so that a note never starts or ends with a click; where rebuilt phases
    add up to more than full scale, the sound is turned down (``limit``).
    """
    magnitude = to_magnitude(log_magnitude)
    if magnitude.shape[0] == 0:
        return np.zeros(0, dtype=np.float32)
    count = 0 if known is None else len(known)
    audio = griffin_lim(magnitude, initial_phase(magnitude, known), iterations, known=count)
    audio[:FADE_IN] *= _half_hann(FADE_IN)
    audio[-FADE_OUT:] *= _half_hann(FADE_OUT)[::-1]
    return limit(audio)


def limit(audio: np.ndarray) -> np.ndarray:
    """``audio`` [samples] within full scale: turned down around each peak over it, and only there.

    A gain that looks ahead: the smallest that any sample within 5 ms needs, smoothed over as long, so that it is at
    most what each sample needs. Rebuilt phases tend to pile up in the first milliseconds of a note; turned down as a
    whole, generated notes came out 4.6 dB too quiet in the mean.
    """
    if not len(audio) or np.abs(audio).max() <= 1.0:
        return audio
    needed = 1.0 / np.maximum(np.abs(audio.astype(np.float64)), 1.0)
    smallest = ndimage.minimum_filter1d(needed, 2 * LOOK_AHEAD + 1, mode="nearest")
    gain = ndimage.uniform_filter1d(smallest, 2 * LOOK_AHEAD + 1, mode="nearest")
    return np.clip(audio * gain, -1.0, 1.0).astype(np.float32)


def _half_hann(samples: int) -> np.ndarray:
    """A rise from 0 to nearly 1 over ``samples`` samples, float32."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / samples)).astype(np.float32)
