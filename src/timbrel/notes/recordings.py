"""Sound files from folders: one-shots and samples that no engine of ours makes, read as notes of four seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from timbrel.notes.noteset import NOTE_SAMPLES, SAMPLE_RATE

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".aif", ".aiff"})
_LONGEST_SECONDS = 12.0  # what is longer is a loop or a scene, of which only the beginning is read
_QUIETEST = 1e-4


def find_recordings(folders: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Sound files below the folders, sorted, each once; and the folders that are not there."""
    found: dict[Path, None] = {}
    absent = []
    for name in folders:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            absent.append(name)
        files = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        found.update(dict.fromkeys(files))
    return list(found), absent


def read_recording(path: Path) -> npt.NDArray[np.float32] | None:
    """The first four seconds, mono, 24 kHz, float32 [96000]; None when it cannot be read or holds no sound."""
    try:
        with soundfile.SoundFile(path) as file:
            frames = int(min(file.frames, _LONGEST_SECONDS * file.samplerate))
            sound: npt.NDArray[Any] = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
            rate = file.samplerate
    except (OSError, RuntimeError):
        return None
    if not len(sound) or not np.isfinite(sound).all() or float(np.abs(sound).max()) < _QUIETEST:
        return None
    heard = soxr.resample(sound, rate, SAMPLE_RATE)[:NOTE_SAMPLES]
    note = np.zeros(NOTE_SAMPLES, dtype=np.float32)
    note[: len(heard)] = heard
    return note
