"""A 4-second note told in another length, in the embedding domain. numpy only.

A generated note has 300 frames: held until frame 225, then released. Cutting it would end in a click or lose the
release; playing it faster would hurry the attack. So the attack stays as it is, the held part is cut short or
stretched, and the release comes last. A note shorter than 4 s gets a release of a quarter of its length.

    300 frames   |attack|······ held ······|release|
    shorter      |attack|· held ·|release|
    longer       |attack|········· held ·········|release|
"""

from __future__ import annotations

import numpy as np

from timbrel.errors import InputError

FRAMES_PER_SECOND = 75
HELD_FRAMES = 225
STEADY_FROM = 75
SHORTEST_FRAMES = 8
RELEASE_SHARE = 4


def with_duration(embedding: np.ndarray, frames: int) -> np.ndarray:
    """``embedding`` [n, d] of one note (n > 225, released at frame 225) → [frames, d], float32.

    ``frames`` = n returns the note unchanged. The release joins without a step: the difference between the last held
    frame and the frame before the learned release is added to the release and fades out over it.
    Raises InputError when ``frames`` is below 8 or the note has no release.
    """
    note = np.asarray(embedding, dtype=np.float32)
    if frames < SHORTEST_FRAMES:
        raise InputError(
            f"a note needs at least {SHORTEST_FRAMES} frames of 1/{FRAMES_PER_SECOND} s; got {frames}"
        )
    if note.ndim != 2 or len(note) <= HELD_FRAMES:
        raise InputError(f"expected one note of more than {HELD_FRAMES} frames; got shape {note.shape}")
    if frames == len(note):
        return note.copy()
    release = note[HELD_FRAMES:]
    if frames < len(note):
        release = _resampled(release, max(2, min(len(release), frames // RELEASE_SHARE)))
    held_frames = frames - len(release)
    if held_frames <= HELD_FRAMES:
        held = note[:held_frames]
    else:
        steady = _resampled(note[STEADY_FROM:HELD_FRAMES], held_frames - STEADY_FROM)
        held = np.concatenate([note[:STEADY_FROM], steady])
    fade = np.linspace(1.0, 0.0, len(release), dtype=np.float32)[:, None]
    joined = release + fade * (held[-1] - note[HELD_FRAMES - 1])
    return np.concatenate([held, joined])


def _resampled(frames: np.ndarray, count: int) -> np.ndarray:
    """Linear interpolation along time to ``count`` frames; first and last frame stay."""
    at = np.linspace(0.0, len(frames) - 1.0, count)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, len(frames) - 1)
    weight = (at - low).astype(np.float32)[:, None]
    return frames[low] * (1.0 - weight) + frames[high] * weight
