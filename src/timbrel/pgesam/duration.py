"""A 4-second note told in another length, as log magnitudes. numpy only.

A generated note has 300 frames: held until frame 225, then released. Cutting it would end in a click or lose the
release; playing it faster or slower would change attack, vibrato and decay. So everything keeps its own speed: the key
is let go earlier, or the held part goes on by itself, and the release follows.

    300 frames   |attack|······ held ······|release|
    shorter      |attack|· held ·|release|
    longer       |attack|······ held ······|continued|release|

The phases are made afterwards, from these magnitudes, so that no join can be a step in the waveform.
"""

from __future__ import annotations

import numpy as np

from timbrel.errors import InputError

FRAMES_PER_SECOND = 75
HELD_FRAMES = 225
STEADY_FROM = 75
SHORTEST_FRAMES = 8
# The most of a note that its release may take.
RELEASE_SHARE = 0.5
# A held part that loses less than this is sustained, and goes on at its level.
SUSTAINED_DB_PER_SECOND = 1.5
# At its end a note lies at least this far below its loudest frame: what rings on longer is damped.
END_DB = 50.0


def with_duration(log_magnitude: np.ndarray, frames: int) -> np.ndarray:
    """``log_magnitude`` [n, bins] in dB of one note (n > 225, released at frame 225) → [frames, bins], float32.

    The release is the note's own, applied to what sounds when the key is let go; a note that would still sound at its
    end dies away faster. ``frames`` = n gives the note itself, unless it has to be damped.
    Raises InputError when ``frames`` is below 8 or the note has no release.
    """
    note = np.asarray(log_magnitude, dtype=np.float32)
    if frames < SHORTEST_FRAMES:
        raise InputError(
            f"a note needs at least {SHORTEST_FRAMES} frames of 1/{FRAMES_PER_SECOND} s; got {frames}"
        )
    if note.ndim != 2 or len(note) <= HELD_FRAMES:
        raise InputError(f"expected one note of more than {HELD_FRAMES} frames; got shape {note.shape}")
    released = _release_frames(len(note), frames)
    missing = max(0, frames - released - HELD_FRAMES)
    held = note[: frames - released - missing]
    if missing:
        held = np.concatenate([held, _continued(note, missing)])
    release = _released(note, held[-1], released)
    told = np.concatenate([held, release])
    levels = _level(told)
    too_loud = max(0.0, float(levels[-1] - levels[: len(held)].max()) + END_DB)
    told[len(held) :] -= np.linspace(0.0, too_loud, released, dtype=np.float32)[:, None]
    return told


def frames_kept(note_frames: int, frames: int) -> int:
    """How many frames of ``with_duration`` are, from the start, those of the note: their phases hold, too."""
    if frames == note_frames:
        return frames
    return min(HELD_FRAMES, frames - _release_frames(note_frames, frames))


def _release_frames(note_frames: int, frames: int) -> int:
    return min(note_frames - HELD_FRAMES, round(frames * RELEASE_SHARE))


def _released(note: np.ndarray, last: np.ndarray, frames: int) -> np.ndarray:
    """The note's release from ``last`` [bins] instead of from its own last held frame.

    Each bin falls as it does in the note. One that was silent there already has no fall of its own: where it is louder
    now, it falls with the whole.
    """
    own = note[HELD_FRAMES : HELD_FRAMES + frames]
    before = note[HELD_FRAMES - 1]
    fall = _level(own) - _level(before[None])
    as_the_whole = np.maximum(own, last + fall[:, None])
    return np.minimum(last + (own - before), as_the_whole)


def _continued(note: np.ndarray, frames: int) -> np.ndarray:
    """``frames`` more of the held part: its steady stretch to and fro around its trend.

    The trend of a decaying note goes on, bin by bin; a sustained one stays at the level that it has reached.
    """
    steady = note[STEADY_FROM:HELD_FRAMES]
    count = len(steady)
    time = np.arange(count, dtype=np.float32) - (count - 1) / 2
    slope = time @ steady / (time @ time)
    trend = steady.mean(0) + time[:, None] * slope
    level_slope = float(time @ _level(steady) / (time @ time))
    decays = level_slope < -SUSTAINED_DB_PER_SECOND / FRAMES_PER_SECOND
    further = np.minimum(slope, 0.0) if decays else np.zeros_like(slope)
    # … 147 148 149 148 147 … 1 0 1 …
    place = np.arange(count, count + frames) % (2 * (count - 1))
    place = np.where(place < count, place, 2 * (count - 1) - place)
    steps = np.arange(1, frames + 1, dtype=np.float32)[:, None]
    continued = trend[-1] + steps * further + (steady - trend)[place]
    return np.maximum(continued, note.min()).astype(np.float32)


def _level(log_magnitude: np.ndarray) -> np.ndarray:
    """Power of each frame of [n, bins] dB: dB, [n]."""
    top = log_magnitude.max(axis=1, keepdims=True)
    power = np.sum(10.0 ** ((log_magnitude - top) / 10.0), axis=1)
    level: np.ndarray = top[:, 0] + 10.0 * np.log10(power)
    return level
