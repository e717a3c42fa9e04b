"""Embeddings decoded and listened to, on all cores: the codec's decoder is what an evaluation spends its time on.

A job goes to a worker process, which keeps one codec; what comes back is small (a pitch, distances, defects).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from timbrel.audio import Audio
from timbrel.codec import phase
from timbrel.codec.kinds import open_codec
from timbrel.codec.runtime import Codec
from timbrel.codec.spectrum import SAMPLE_RATE, log_magnitude, log_spectral_distance
from timbrel.engine.finish import finished
from timbrel.errors import DataError
from timbrel.evaluation.defects import Defects, defects
from timbrel.evaluation.smoothness import Walk, crossfade, walk
from timbrel.notes.render import map_jobs
from timbrel.pitch.estimate import estimate_by_swift

# A job takes a second or two; only one that hangs, or a machine that does other things, needs this long.
TIMEOUT_SECONDS = 600.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteJob:
    """A note to decode from ``embedding`` [frames, 128], or a real one to listen to when there is none.

    ``reference`` int16 [samples] is the real note. ``f0``: whether the pitch is measured.
    ``lsd_frames``: the LSD is taken over the first so many frames, once for each number.
    """

    embedding: np.ndarray | None = None
    reference: np.ndarray | None = None
    f0: bool = True
    lsd_frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardNote:
    """``midi`` of the decoded note, or of the real one where there is nothing to decode: nan when unvoiced or not
    measured. ``defects`` of the decoded note as it would be served.
    """

    midi: float
    lsd_db: tuple[float, ...]
    defects: Defects | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkJob:
    """Embeddings [steps + 1, frames, 128] along a straight line of the map, one pitch."""

    embeddings: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardWalk:
    """The generator's walk, and the cross-fade between the same two end notes."""

    generated: Walk
    crossfade: Walk


Job = NoteJob | WalkJob
Heard = HeardNote | HeardWalk


def listen(
    jobs: Sequence[Job], codec: Path, *, workers: int | None = None, progress: Progress
) -> list[Heard]:
    """What is heard of every job, in their order; ``codec`` is the folder of a trained codec.

    Raises DataError when a worker fails: a note that is not measured would make every share a lie.
    """
    heard: list[Heard] = []
    for result in map_jobs(jobs, Listener(codec), workers=workers, timeout=TIMEOUT_SECONDS):
        if result.value is None:
            raise DataError(f"listening to a decoded note {result.fault}: {result.detail}")
        heard.append(result.value)
        progress(len(heard), len(jobs))
    return heard


@dataclass(frozen=True, slots=True)
class Listener:
    """What a worker does with a job."""

    codec: Path

    def __call__(self, job: Job) -> Heard:
        codec = load(self.codec)
        return _note(job, codec) if isinstance(job, NoteJob) else _walk(job, codec)


@lru_cache(maxsize=1)
def load(folder: Path) -> Codec:
    """The codec of ``folder`` on one thread of this process."""
    torch.set_num_threads(1)
    return open_codec(folder)


def _note(job: NoteJob, codec: Codec) -> HeardNote:
    real = None if job.reference is None else job.reference.astype(np.float32) / np.float32(32768.0)
    audio = None if job.embedding is None else codec.decode(job.embedding.astype(np.float32))
    distances: tuple[float, ...] = ()
    if job.lsd_frames:
        if real is None or audio is None:
            raise ValueError("an LSD needs an embedding and a reference")
        before, after = log_magnitude(real[: len(audio)]), log_magnitude(audio)
        distances = tuple(log_spectral_distance(before[:n], after[:n]) for n in job.lsd_frames)
    return HeardNote(
        midi=_midi(real if audio is None else audio) if job.f0 else math.nan,
        lsd_db=distances,
        defects=None if audio is None else defects(Audio(finished(audio), SAMPLE_RATE)),
    )


def _midi(audio: np.ndarray | None) -> float:
    return math.nan if audio is None else estimate_by_swift(audio, SAMPLE_RATE).midi


def _walk(job: WalkJob, codec: Codec) -> HeardWalk:
    spectra = [log_magnitude(codec.decode(one.astype(np.float32))) for one in job.embeddings]
    mixed = crossfade(spectra[0], spectra[-1], len(spectra) - 1)
    # Both walks end in the same two sounds; between them the cross-fade, too, is heard through a rebuilt phase.
    between = [log_magnitude(phase.reconstruct(one)) for one in mixed[1:-1]]
    return HeardWalk(generated=walk(spectra), crossfade=walk([spectra[0], *between, spectra[-1]]))
