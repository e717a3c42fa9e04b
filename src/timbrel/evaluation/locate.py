"""Does the note synthesised at the place of a recording sound like the recording?

    held-out note ─► locate ─► synthesize, same pitch ──► LSD to the recording
                     random library places, same pitch ─► LSD
                     search ─► best patch, rendered anew at the same pitch ─► LSD

The recordings are notes of instruments that neither map nor generator has heard. Before two notes are compared, both
start at their onset and are brought to the same power; the log-spectral distance (LSD) is taken over what they share in
length. ``steadiness`` measures the place alone: how far it moves when the same note is recorded in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from timbrel.audio import SAMPLE_RATE, Audio
from timbrel.codec import spectrum
from timbrel.encoders import frontend
from timbrel.engine.engine import Engine
from timbrel.engine.refinement import loudness_matched_distances
from timbrel.errors import DataError
from timbrel.evaluation.queries import job_of
from timbrel.evaluation.report import share
from timbrel.notes.noteset import Note, NoteSet
from timbrel.notes.render import render_all

HELD_OUT = ("validation", "test")
VELOCITY = 100
WAYS = ("located", "refined")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocateSettings:
    """Notes of ``pitches`` of every held-out instrument, each against ``draws`` random library places."""

    pitches: tuple[int, ...]
    draws: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recording: the LSD (dB) of each way's note, of the random places' notes, of the nearest patch's render."""

    family: str
    instrument: str
    pitch: int
    distances: Mapping[str, float]
    random: tuple[float, ...]
    nearest_patch: float  # nan where the search found none, or it gave no sound


def measure(
    engine: Engine,
    notes: NoteSet,
    settings: LocateSettings,
    *,
    banks: Path,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """All held-out cases. ``banks``: folder of the user's soundfonts, for the patches that are presets of theirs.

    Raises DataError when ``notes`` holds no held-out note at one of the pitches.
    """
    limits = engine.bundle.manifest.map
    rows = [row for pitch in settings.pitches for row in notes.select(split=HELD_OUT, pitch=pitch)]
    rows = [row for row in rows if abs(notes.notes[row].f0_midi - notes.notes[row].pitch) <= 0.5]
    if not rows or any(not limits.pitch_low <= pitch <= limits.pitch_high for pitch in settings.pitches):
        raise DataError(
            "there is no held-out note to locate: choose pitches of the map that data/notes holds"
        )
    pools = _random_notes(engine, settings, progress)
    recordings = [Audio(audio, SAMPLE_RATE) for audio in notes.float_audio(rows)]
    chosen = [notes.notes[row] for row in rows]
    patches = _nearest_patches(engine, chosen, recordings, banks, progress)
    cases = []
    for number, (note, recording, patch) in enumerate(zip(chosen, recordings, patches, strict=True)):
        distances = {}
        for way in WAYS:
            place = engine.locate(recording, refine=way == "refined")
            made = engine.synthesize(x=place.x, y=place.y, pitch=note.pitch, seconds=recording.seconds)
            distances[way] = distance(recording.samples, made.samples)
        cases.append(
            Case(
                family=note.family,
                instrument=note.instrument,
                pitch=note.pitch,
                distances=distances,
                random=tuple(distance(recording.samples, each) for each in pools[note.pitch]),
                nearest_patch=np.nan if patch is None else distance(recording.samples, patch),
            )
        )
        progress("located", number + 1, len(rows))
    return {
        "bundle": engine.bundle.id,
        "settings": asdict(settings),
        "recordings": len(cases),
        "instruments": len({case.instrument for case in cases}),
        "results": {way: summary(cases, way) for way in WAYS},
        "median_lsd_random": float(np.median([d for case in cases for d in case.random])),
        "median_lsd_nearest_patch": float(np.nanmedian([case.nearest_patch for case in cases])),
    }


def distance(reference: np.ndarray, other: np.ndarray) -> float:
    """LSD in dB of two notes (float32 [n] at 24 kHz), onset to onset, at equal power, over the shorter's length."""
    one, two = (samples[frontend.onset(samples) :] for samples in (reference, other))
    length = min(len(one), len(two))
    target = spectrum.log_magnitude(one[:length])
    return float(loudness_matched_distances(target, spectrum.log_magnitude(two[:length])[None])[0])


def summary(cases: Sequence[Case], way: str) -> dict[str, Any]:
    """Shares of cases whose note is the nearer one, and the median LSD; over all and by family.

    ``closer_than_random``: of all (case, random place) pairs; ``closer_than_mean_random``: than the case's mean
    random place; ``closer_than_nearest_patch``: of the cases that have such a patch.
    """

    def figures(some: Sequence[Case]) -> dict[str, Any]:
        pairs = [case.distances[way] < other for case in some for other in case.random]
        means = [case.distances[way] < float(np.mean(case.random)) for case in some]
        patches = [
            case.distances[way] < case.nearest_patch for case in some if np.isfinite(case.nearest_patch)
        ]
        return {
            "recordings": len(some),
            "closer_than_random": share(sum(pairs), len(pairs)),
            "closer_than_mean_random": share(sum(means), len(means)),
            "closer_than_nearest_patch": share(sum(patches), len(patches)),
            "median_lsd": float(np.median([case.distances[way] for case in some])),
        }

    families = sorted({case.family for case in cases})
    by_family = {name: figures([case for case in cases if case.family == name]) for name in families}
    return figures(cases) | {"by_family": by_family}


def steadiness(
    engine: Engine,
    notes: NoteSet,
    *,
    pitch: int,
    seed: int,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """How far a held-out note's place moves when it is recorded otherwise (map units; the map's radius is about 1).

    ``other_note`` is the scale: the distance between two notes drawn at random.
    """
    rows = notes.select(split=HELD_OUT, pitch=pitch)
    recordings = notes.float_audio(rows)
    rng = np.random.default_rng(seed)
    places = [_place(engine, samples) for samples in recordings]
    moved: dict[str, list[float]] = {name: [] for name in (*RECORDED_OTHERWISE, "other_note")}
    for number, (samples, place) in enumerate(zip(recordings, places, strict=True)):
        for name, otherwise in RECORDED_OTHERWISE.items():
            moved[name].append(_gap(place, _place(engine, otherwise(samples, rng))))
        moved["other_note"].append(_gap(place, places[int(rng.integers(len(places)))]))
        progress("steadiness", number + 1, len(rows))
    return {
        name: {"median": float(np.median(gaps)), "p90": float(np.percentile(gaps, 90))}
        for name, gaps in moved.items()
    }


def _silence_before(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([np.zeros(SAMPLE_RATE // 2 + 17, dtype=np.float32), samples])


def _noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise at -60 dBFS RMS throughout, half a second of it before the note."""
    led = _silence_before(samples, rng)
    return led + rng.normal(0.0, 1e-3, len(led)).astype(np.float32)


def _cut(seconds: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """The first ``seconds`` alone, with 10 ms of fade."""

    def cut(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kept = samples[: round(seconds * SAMPLE_RATE)].copy()
        kept[-240:] *= np.linspace(1.0, 0.0, 240, dtype=np.float32)
        return kept

    return cut


def _detuned(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """30 cents higher, as a recording that ran too fast."""
    sharp: np.ndarray = soxr.resample(samples, SAMPLE_RATE * 2.0 ** (0.3 / 12.0), SAMPLE_RATE)
    return sharp


RECORDED_OTHERWISE: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "half_a_second_of_silence_before": _silence_before,
    "26_db_lower": lambda samples, rng: samples * np.float32(0.05),
    "noise_at_minus_60_dbfs": _noise,
    "detuned_30_cents": _detuned,
    "cut_after_1.2_s": _cut(1.2),
    "cut_after_0.5_s": _cut(0.5),
}


def _random_notes(
    engine: Engine, settings: LocateSettings, progress: Progress
) -> dict[int, list[np.ndarray]]:
    """The notes of ``draws`` random library places at each pitch."""
    rng = np.random.default_rng(settings.seed)
    library = engine.bundle.patches
    pools: dict[int, list[np.ndarray]] = {}
    for number, pitch in enumerate(settings.pitches):
        chosen = rng.choice(len(library), size=min(settings.draws, len(library)), replace=False)
        pools[pitch] = [
            engine.synthesize(x=library[n].x, y=library[n].y, pitch=pitch, seconds=4.0).samples
            for n in chosen
        ]
        progress("random places", number + 1, len(settings.pitches))
    return pools


def _nearest_patches(
    engine: Engine, notes: Sequence[Note], recordings: Sequence[Audio], banks: Path, progress: Progress
) -> list[np.ndarray | None]:
    """The best patch of the search for each recording, rendered anew at the recording's pitch."""
    jobs, wanted = [], []
    for number, (note, recording) in enumerate(zip(notes, recordings, strict=True)):
        for hit in engine.search(recording, k=1).hits:
            patch = engine.bundle.patch(hit.patch_id)
            key = note.pitch - round(patch.offset_semitones)
            if 0 <= key <= 127:
                jobs.append(job_of(patch, ((key, VELOCITY),), banks))
                wanted.append(number)
        progress("searched", number + 1, len(notes))
    found: list[np.ndarray | None] = [None] * len(notes)
    for number, outcome in zip(wanted, render_all(jobs), strict=True):
        audio = outcome.notes[0].audio if outcome.notes else None
        if audio is not None:
            found[number] = audio.astype(np.float32) / 32768.0
    return found


def _place(engine: Engine, samples: np.ndarray) -> tuple[float, float]:
    located = engine.locate(Audio(samples, SAMPLE_RATE), refine=False)
    return located.x, located.y


def _gap(one: tuple[float, float], two: tuple[float, float]) -> float:
    return float(np.hypot(one[0] - two[0], one[1] - two[1]))
