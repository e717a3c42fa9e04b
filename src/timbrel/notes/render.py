"""Render jobs on all cores, each engine in a process of its own.

A job is one patch at several (key, velocity) pairs. What a worker hands back is finished: resampled to 24 kHz,
peak-normalised int16, with its F0 measured. A patch that crashes its engine, or keeps it busy for too long,
costs that patch: the pool starts a new process and goes on.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import soxr
from pebble import ProcessExpired, ProcessPool

from timbrel.notes.dx7 import from_packed, to_unpacked
from timbrel.notes.noteset import HELD_SECONDS, NOTE_SAMPLES, NOTE_SECONDS, SAMPLE_RATE, quantise

if TYPE_CHECKING:
    from pebble import ProcessFuture

Job = TypeVar("Job")
Result = TypeVar("Result")

# Below this peak of the engine's own output (about -66 dBFS) a note counts as silent.
SILENCE_PEAK = 5e-4
# F0 is measured where the attack is over and a plucked note still rings.
F0_START_SECONDS = 0.08
F0_SECONDS = 0.6
# Where of a struck bar only the lowest mode still rings, if that is what it is heard by.
SETTLED_START_SECONDS = 1.2
SETTLED_SECONDS = 1.0
# Hundreds of times what a patch takes: what is kept must not depend on what else the machine is doing.
JOB_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderJob:
    """One patch. ``voice``: a packed DX7 voice; or ``font``, ``bank``, ``program``: a soundfont's preset."""

    key: str
    notes: tuple[tuple[int, int], ...]  # (MIDI key, velocity)
    voice: bytes | None = None
    font: Path | None = None
    bank: int = 0
    program: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedNote:
    """``audio`` int16 [96000], or None with the ``fault``: silent or not_finite."""

    pitch: int
    velocity: int
    audio: npt.NDArray[np.int16] | None
    fault: str
    f0_midi: float
    f0_confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What became of a job: its notes in the order asked for, or a ``fault`` (crashed, timed_out, failed)."""

    job: RenderJob
    notes: tuple[RenderedNote, ...]
    fault: str = ""
    detail: str = ""


@lru_cache(maxsize=4)
def _soundfont(path: Path) -> Any:
    from timbrel.notes.soundfonts import SoundfontEngine

    return SoundfontEngine(path)


class DexedEngine:
    """Renders packed DX7 voices at 44.1 kHz. The engine (GPL) is imported here, in the render process only."""

    sample_rate = 44_100

    def __init__(self) -> None:
        from dexed._dexed import DexedSynth

        self._make = DexedSynth

    def render(
        self, packed: bytes, *, key: int, velocity: int, held: float, seconds: float
    ) -> npt.NDArray[np.float32]:
        """One note, float32 [seconds * 44100]."""
        # A new synthesiser for every note: oscillators and low-frequency oscillator start at the same phase.
        synth = self._make(float(self.sample_rate), 0)
        synth.load_sysex(to_unpacked(from_packed(packed)) + b"\x3f")
        audio: npt.NDArray[np.float32] = synth.render(key, velocity, held, seconds)
        return audio


@lru_cache(maxsize=1)
def _dexed() -> DexedEngine:
    return DexedEngine()


def render_job(job: RenderJob) -> tuple[RenderedNote, ...]:
    """Render every note of ``job`` in this process."""
    return tuple(_finish(_raw(job, key, velocity), key, velocity) for key, velocity in job.notes)


def _raw(job: RenderJob, key: int, velocity: int) -> tuple[npt.NDArray[np.float32], int]:
    span = {"held": HELD_SECONDS, "seconds": NOTE_SECONDS}
    if job.voice is not None:
        engine = _dexed()
        return engine.render(job.voice, key=key, velocity=velocity, **span), engine.sample_rate
    engine = _soundfont(job.font)
    return (
        engine.render(bank=job.bank, program=job.program, key=key, velocity=velocity, **span),
        engine.sample_rate,
    )


def _finish(rendered: tuple[npt.NDArray[np.float32], int], key: int, velocity: int) -> RenderedNote:
    audio, rate = rendered
    fault = ""
    if not np.isfinite(audio).all():
        fault = "not_finite"
    elif float(np.abs(audio).max(initial=0.0)) < SILENCE_PEAK:
        fault = "silent"
    if fault:
        return nothing(key, velocity, fault)
    resampled = soxr.resample(audio, rate, SAMPLE_RATE)[:NOTE_SAMPLES]
    pcm = quantise(np.pad(resampled, (0, NOTE_SAMPLES - len(resampled))))
    midi, confidence = measure_f0(pcm)
    return RenderedNote(
        pitch=key, velocity=velocity, audio=pcm, fault="", f0_midi=midi, f0_confidence=confidence
    )


def nothing(key: int, velocity: int, fault: str) -> RenderedNote:
    """A note that gave no usable audio."""
    return RenderedNote(
        pitch=key, velocity=velocity, audio=None, fault=fault, f0_midi=math.nan, f0_confidence=math.nan
    )


def measure_f0(pcm: npt.NDArray[np.int16]) -> tuple[float, float]:
    """(MIDI pitch, confidence) of a note [96000] just after its onset; nan when unvoiced."""
    from timbrel.pitch.estimate import estimate

    found = estimate(_after_onset(pcm, F0_START_SECONDS, F0_SECONDS), SAMPLE_RATE)
    return found.midi, found.confidence


def measure_settled_f0(pcm: npt.NDArray[np.int16]) -> tuple[float, float]:
    """(MIDI pitch, confidence) of a note [96000] by its period, long after its onset; nan unless beyond doubt."""
    from timbrel.pitch.estimate import estimate_by_period

    found = estimate_by_period(_after_onset(pcm, SETTLED_START_SECONDS, SETTLED_SECONDS), SAMPLE_RATE)
    return found.midi, found.confidence


def _after_onset(pcm: npt.NDArray[np.int16], start_seconds: float, seconds: float) -> npt.NDArray[np.float32]:
    """A stretch of a note, its peak at 0.9 (silence stays silence)."""
    loud = np.abs(pcm) > 0.05 * np.abs(pcm).max()
    length = round(seconds * SAMPLE_RATE)
    start = min(int(np.argmax(loud)) + round(start_seconds * SAMPLE_RATE), NOTE_SAMPLES - length)
    window = pcm[start : start + length].astype(np.float32) / 32768.0
    peak = float(np.abs(window).max())
    return window * np.float32(0.9 / peak) if peak > 0.0 else window


def core_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult(Generic[Result]):
    """``value`` of one job; or None and the ``fault``: crashed, timed_out, failed."""

    value: Result | None
    fault: str = ""
    detail: str = ""


def map_jobs(
    jobs: Iterable[Job],
    work: Callable[[Job], Result],
    *,
    workers: int | None = None,
    timeout: float = JOB_TIMEOUT_SECONDS,
) -> Iterator[JobResult[Result]]:
    """``work(job)`` of every job on ``workers`` processes (all cores), results in the order of ``jobs``.

    A job that raises, ends its process or runs longer than ``timeout`` seconds costs itself only. A few jobs are
    in flight at once, so that finished audio does not pile up in memory. Processes are spawned, not forked: the
    caller may hold threads.
    """
    count = workers or core_count()
    waiting: deque[ProcessFuture] = deque()
    with ProcessPool(max_workers=count, context=get_context("spawn")) as pool:
        try:
            for job in jobs:
                waiting.append(pool.schedule(work, args=(job,), timeout=timeout))
                if len(waiting) > 3 * count:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        except BaseException:
            pool.stop()
            raise


def _result(future: ProcessFuture) -> JobResult[Any]:
    try:
        return JobResult(value=future.result())
    except FutureTimeout:
        return JobResult(value=None, fault="timed_out", detail="ran past its time limit")
    except ProcessExpired as error:
        return JobResult(
            value=None, fault="crashed", detail=f"engine process ended with status {error.exitcode}"
        )
    except Exception as error:  # whatever an engine raises in its process costs this patch only
        return JobResult(value=None, fault="failed", detail=str(error))


def render_all(
    jobs: Iterable[RenderJob],
    *,
    workers: int | None = None,
    timeout: float = JOB_TIMEOUT_SECONDS,
    report: Callable[[int], None] = lambda done: None,
    work: Callable[[RenderJob], tuple[RenderedNote, ...]] = render_job,
) -> Iterator[Rendered]:
    """Outcomes in the order of ``jobs``; ``report(jobs done)`` is called after each. See :func:`map_jobs`."""
    asked: list[RenderJob] = []

    def noted() -> Iterator[RenderJob]:
        for job in jobs:
            asked.append(job)
            yield job

    for done, result in enumerate(map_jobs(noted(), work, workers=workers, timeout=timeout), start=1):
        report(done)
        yield Rendered(
            job=asked[done - 1], notes=result.value or (), fault=result.fault, detail=result.detail
        )
