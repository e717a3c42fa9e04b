"""What every encoder hears: three seconds from the onset, at one level.

A search must not depend on how long somebody waited before playing, nor on how loud they recorded. Both are
settled here, before any network, so that no network has to learn them.

    audio ──► onset ──► 72,000 samples ──► level
              leading silence, quiet       the loudest 100 ms
              noise included, cut off      at REFERENCE_RMS
"""

from __future__ import annotations

import numpy as np

from timbrel.errors import AudioError

SAMPLE_RATE = 24_000
CLIP_SAMPLES = 72_000
"""Length of a clip: 3 s, about as long as a key is held in the library's renders."""

REFERENCE_RMS = 0.1
"""Root mean square of a clip's loudest 100 ms (-20 dBFS: headroom for peaky waveforms)."""

_FRAME = 480  # 20 ms: one period of the lowest note still fits in
_HOP = 120  # 5 ms: as exact as an onset has to be
_CERTAIN_DB = -16.0  # a frame this close to the loudest one is the note, not the room
_QUIET_DB = -40.0  # nothing below this is heard as the beginning of the note
_ABOVE_NOISE_DB = 5.0  # how far the note must rise above what was there before it
_LEVEL_WINDOW = 2_400
_LEVEL_HOP = 600
_SILENCE = 1e-5  # RMS of the loudest window (-100 dBFS) below which there is nothing to amplify


def clip(audio: np.ndarray) -> np.ndarray:
    """The clip of a recording: float32 ``[72000]``, starting at the onset, zero-padded, level-normalised.

    ``audio`` is mono ``[samples]`` at 24 kHz. Silence gives zeros (the gate refuses it before it is searched
    for). Raises AudioError when it is not one-dimensional, is empty, or holds values that are not finite.
    """
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1 or audio.size == 0:
        raise AudioError(f"Expected mono samples [n] at 24 kHz, got an array of shape {audio.shape}.")
    if not np.isfinite(audio).all():
        raise AudioError("The audio holds values that are not finite; export it again.")
    start = onset(audio)
    kept = audio[start : start + CLIP_SAMPLES]
    level = loudest_rms(kept)
    result = np.zeros(CLIP_SAMPLES, dtype=np.float32)
    if level > _SILENCE:
        result[: kept.size] = kept * np.float32(REFERENCE_RMS / level)
    return result


def onset(audio: np.ndarray) -> int:
    """The sample at which the note begins, within 5 ms; 0 for silence.

    The first 20-ms frame within 16 dB of the loudest one is certainly the note. From there the search goes
    back in time for as long as frames stay above both -40 dB and the quietest frame seen before, plus 5 dB. A
    slow attack is followed down to its beginning, and steady noise before the note (20 dB below it or less)
    is not mistaken for it.
    """
    power = _frame_power(audio, _FRAME, _HOP)
    loudest = float(power.max())
    if loudest <= _SILENCE**2:
        return 0
    level = 10.0 * np.log10(np.maximum(power / loudest, 1e-12))
    certain = int(np.argmax(level >= _CERTAIN_DB))
    before = level[:certain]
    if before.size == 0:
        return 0
    threshold = max(_QUIET_DB, float(before.min()) + _ABOVE_NOISE_DB)
    below = np.flatnonzero(before < threshold)
    first = int(below[-1]) + 1 if below.size else 0
    if first == 0:
        return 0
    # The first frame above the threshold holds the onset in its last hop: everything earlier was still below.
    return min(first * _HOP + _FRAME - _HOP, audio.size - 1)


def loudest_rms(audio: np.ndarray) -> float:
    """Root mean square of the loudest 100 ms; shorter audio counts as padded with zeros."""
    return float(np.sqrt(_frame_power(audio, _LEVEL_WINDOW, _LEVEL_HOP).max()))


def _frame_power(audio: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Mean square of each frame, by differences of a running sum; the last frames are padded with zeros."""
    frames = max(1, -(-audio.size // hop))
    squares = np.zeros(frames * hop + frame, dtype=np.float64)
    squares[: audio.size] = np.square(audio, dtype=np.float64)
    running = np.concatenate([[0.0], np.cumsum(squares)])
    starts = np.arange(frames) * hop
    return np.maximum(running[starts + frame] - running[starts], 0.0) / frame
