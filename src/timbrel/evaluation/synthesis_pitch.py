"""Does a synthesised note have the pitch that was asked for, and is it a clean note?

The pitch is SwiftF0's alone, on the decoded audio: the median over voiced frames, octave errors counted as
errors, an unvoiced note counted as a miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from timbrel.engine.engine import Engine
from timbrel.evaluation.defects import Defects, defects
from timbrel.evaluation.report import share
from timbrel.library.tables import Patch
from timbrel.pitch.estimate import estimate_by_swift

CENTS = 50.0
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisSettings:
    """``pairs`` random (library patch's place on the map, pitch of the map) pairs, ``seconds`` long each."""

    pairs: int
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    patch: Patch
    pitch: int
    error_cents: float
    defects: Defects


def measure(
    engine: Engine, settings: SynthesisSettings, *, progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """Synthesise, decode and measure every pair."""
    bundle = engine.bundle
    limits = bundle.manifest.map
    rng = np.random.default_rng(settings.seed)
    notes = []
    for number in range(settings.pairs):
        patch = bundle.patches[int(rng.integers(len(bundle.patches)))]
        pitch = int(rng.integers(limits.pitch_low, limits.pitch_high + 1))
        audio = engine.synthesize(x=patch.x, y=patch.y, pitch=pitch, seconds=settings.seconds)
        found = estimate_by_swift(audio.samples, audio.sample_rate)
        error = 100.0 * (found.midi - pitch) if found.voiced else math.nan
        notes.append(_Note(patch=patch, pitch=pitch, error_cents=error, defects=defects(audio)))
        progress("notes", number + 1, settings.pairs)
    return {"bundle": bundle.id, "settings": asdict(settings), "results": _summary(notes)}


def _summary(notes: Sequence[_Note]) -> dict[str, Any]:
    errors = np.array([note.error_cents for note in notes])
    voiced = errors[np.isfinite(errors)]
    octaves = np.abs(voiced) - 1200.0 * np.round(np.abs(voiced) / 1200.0)
    octave_errors = (np.abs(voiced) > CENTS) & (np.abs(octaves) <= CENTS)
    total = len(notes)
    by_family: dict[str, list[bool]] = {}
    for note in notes:
        by_family.setdefault(note.patch.family, []).append(abs(note.error_cents) <= CENTS)
    return {
        "notes": total,
        "within_50_cents": share(int((np.abs(voiced) <= CENTS).sum()), total),
        "unvoiced": share(total - len(voiced), total),
        "octave_errors": share(int(octave_errors.sum()), total),
        "median_error_cents": float(np.median(np.abs(voiced))) if len(voiced) else math.nan,
        "p90_error_cents": float(np.percentile(np.abs(voiced), 90)) if len(voiced) else math.nan,
        "clipped": share(sum(note.defects.clipped for note in notes), total),
        "silent": share(sum(note.defects.silent for note in notes), total),
        "clicking": share(sum(note.defects.clicking for note in notes), total),
        "cut_off": share(sum(note.defects.cut_off for note in notes), total),
        "direct_current": share(sum(note.defects.direct_current for note in notes), total),
        "within_50_cents_by_family": {
            family: {"notes": len(good), "share": share(sum(good), len(good))}
            for family, good in sorted(by_family.items())
        },
    }
