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
_STEADY_FRAMES = 20  # 100 ms
_STEADY_RANGE_DB = 6.0  # what frames of noise vary by
_STEADY_RISE_DB = 2.0  # from one half of them to the other
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

    The first 20-ms frame within 16 dB of the loudest one is certainly the note. From there the search goes back in
    time for as long as frames stay above -40 dB, so that a slow attack is followed down to its beginning. If what is
    found there is steady for 100 ms, it is noise before the note (20 dB below it or less), and the note begins where
    frames rise 5 dB above it.

    Silence before the note changes nothing: frames look back from each hop, into zeros where there is nothing, and
    only what is above -40 dB is asked whether it is steady.
    """
    power = _frame_power(np.pad(audio, (_FRAME - _HOP, 0)), _FRAME, _HOP)
    loudest = float(power.max())
    if loudest <= _SILENCE**2:
        return 0
    level = 10.0 * np.log10(np.maximum(power / loudest, 1e-12))
    certain = int(np.argmax(level >= _CERTAIN_DB))
    first = _last_below(level[:certain], _QUIET_DB) + 1
    # The first frames still hold what was before them.
    before = level[first + _FRAME // _HOP : certain]
    floor = _steady_level(before)
    if floor is not None:
        first += _FRAME // _HOP + _last_below(before, floor + _ABOVE_NOISE_DB) + 1
    # A frame's last hop is what brings it above the threshold: everything earlier was still below.
    return min(first * _HOP, audio.size - 1)


def _last_below(level: np.ndarray, threshold: float) -> int:
    """The last frame below ``threshold``, -1 when there is none."""
    below = np.flatnonzero(level < threshold)
    return int(below[-1]) if below.size else -1


def _steady_level(level: np.ndarray) -> float | None:
    """Mean level (dB) of the first 100 ms of frames, if they neither vary nor rise: noise does not, attacks do."""
    start = level[:_STEADY_FRAMES]
    if start.size < _STEADY_FRAMES or np.ptp(start) > _STEADY_RANGE_DB:
        return None
    half = _STEADY_FRAMES // 2
    rise = float(start[half:].mean() - start[:half].mean())
    return float(start.mean()) if abs(rise) <= _STEADY_RISE_DB else None


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
