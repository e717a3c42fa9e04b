"""Recordings as callers hold them, to the bytes of a file: what every transport sends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from timbrel.audio import Audio, float_wav_bytes
from timbrel.engine.arguments import MAX_RECORDINGS, whole
from timbrel.errors import AudioError, AudioTooLarge, InputError

Sound: TypeAlias = Audio | bytes | str | os.PathLike[str] | tuple[np.ndarray, int]
"""A path; the bytes of an audio file; ``Audio``; or samples, float [n] or [n, channels], with their rate in Hz, as
``soundfile.read`` returns them.
"""

# No server can be set to take more (TIMBREL_MAX_UPLOAD_MIB).
_MOST_BYTES = 1 << 30
_MOST_CHANNELS = 64


def recordings(sounds: Sound | Sequence[Sound]) -> tuple[bytes, ...]:
    """One recording or several, each as a file. Raises InputError unless there are one to eight."""
    several = isinstance(sounds, list | tuple) and not _is_pair(sounds)
    each: Sequence[Sound] = sounds if several else (sounds,)  # type: ignore[assignment]
    if not 1 <= len(each) <= MAX_RECORDINGS:
        raise InputError(f"a search takes 1 to {MAX_RECORDINGS} recordings, not {len(each)}")
    return tuple(encoded(sound) for sound in each)


def encoded(sound: Sound) -> bytes:
    """One recording as a file; samples become 32-bit float WAV, so that nothing is rounded.

    Raises AudioError for a file that cannot be read, InputError for what is no recording.
    """
    if isinstance(sound, bytes | bytearray | memoryview):
        return bytes(sound)
    if isinstance(sound, str | os.PathLike):
        return _file(Path(sound))
    if isinstance(sound, Audio):
        return _wav(sound.samples, sound.sample_rate)
    if _is_pair(sound):
        return _wav(*sound)
    raise InputError(
        "a recording is a path, the bytes of an audio file, Audio, or (samples, sample_rate), not "
        f"{type(sound).__name__}"
    )


def _is_pair(sound: object) -> bool:
    return isinstance(sound, tuple) and len(sound) == 2 and isinstance(sound[0], np.ndarray)


def _wav(samples: np.ndarray, sample_rate: int) -> bytes:
    rate = whole("sample_rate", sample_rate, 1, 1_000_000)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"samples are {samples.dtype}, not floats within -1 … 1: divide 16-bit integers by 32768"
        )
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= _MOST_CHANNELS):
        raise InputError(
            f"samples have shape {list(samples.shape)}: send [n], or [n, channels] with 1 to {_MOST_CHANNELS} channels"
        )
    # What float32 cannot hold becomes infinite, and is refused where the recording is read.
    with np.errstate(over="ignore"):
        return float_wav_bytes(samples, rate)


def _file(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise AudioTooLarge(f"{path} has {size >> 20} MiB: send a shorter clip")
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"cannot open {path}: {error.strerror or error}") from None
