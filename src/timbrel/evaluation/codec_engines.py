"""A codec on sound engines that it was never trained on, beside the floor and the ceiling of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from timbrel.codec.baselines import FullMagnitudeCodec, MelCodec
from timbrel.codec.evaluate import CodecQuality, TurnsBack, evaluate
from timbrel.evaluation.report import share

# What is promised of the shipped codec, over the notes of all engines together.
F0_KEPT_LEAST = 0.99
LSD_DB_MOST = 5.0
BELOW_FLOOR_DB_LEAST = 2.0


def measure(
    codec: TurnsBack, notes: Mapping[str, Sequence[np.ndarray]], midi: Callable[[np.ndarray], float]
) -> dict[str, Any]:
    """Figures of all notes together, and per engine under ``engines``.

    ``notes``: float32 [samples] at 24 kHz by engine; ``midi(audio)`` measures F0, nan when unvoiced. ``mel_floor`` is
    128 mel bands, inverted and given a phase as in our codec; ``full_magnitude`` keeps all 1025 magnitudes, and is
    what the reconstruction of the phase costs alone.
    """
    yardsticks: dict[str, TurnsBack] = {
        "codec": codec,
        "mel_floor": MelCodec(),
        "full_magnitude": FullMagnitudeCodec(),
    }
    engines: dict[str, dict[str, CodecQuality]] = {}
    for engine, sounds in notes.items():
        # Each original is measured once; a decoded sound never has the address of an original, which is alive.
        known = {id(sound): midi(sound) for sound in sounds}

        def remembered(sound: np.ndarray, known: dict[int, float] = known) -> float:
            return known[id(sound)] if id(sound) in known else midi(sound)

        engines[engine] = {name: evaluate(each, sounds, remembered) for name, each in yardsticks.items()}
    together = {name: [found[name] for found in engines.values()] for name in yardsticks}
    return {
        **_figures(together),
        "engines": {
            engine: _figures({name: [quality] for name, quality in found.items()})
            for engine, found in engines.items()
        },
    }


def shortcomings(figures: Mapping[str, Any]) -> list[str]:
    """What ``measure``'s figures of all notes together lack to what is promised, a line each."""
    ours = figures["codec"]
    below = figures["below_floor_db"]
    problems = {
        f"F0 kept on {ours['f0_kept']:.4f} of the voiced notes, not {F0_KEPT_LEAST}": (
            ours["f0_kept"] >= F0_KEPT_LEAST
        ),
        f"log-spectral distance {ours['lsd_db']:.2f} dB, over {LSD_DB_MOST}": ours["lsd_db"] <= LSD_DB_MOST,
        f"{below:.2f} dB below the floor, not {BELOW_FLOOR_DB_LEAST}": below >= BELOW_FLOOR_DB_LEAST,
    }
    return [problem for problem, holds in problems.items() if not holds]


def _figures(found: Mapping[str, Sequence[CodecQuality]]) -> dict[str, Any]:
    """One entry per codec, over the engines whose qualities are given."""
    figures: dict[str, Any] = {}
    for name, qualities in found.items():
        notes = sum(quality.notes for quality in qualities)
        voiced = sum(quality.voiced for quality in qualities)
        kept = sum(round(quality.f0_kept * quality.voiced) for quality in qualities if quality.voiced)
        figures["notes"], figures["voiced"] = notes, voiced
        figures[name] = {
            "f0_kept": share(kept, voiced),
            "lsd_db": sum(quality.lsd_db * quality.notes for quality in qualities) / notes,
            "decode_seconds": max(quality.decode_seconds for quality in qualities),
        }
    figures["below_floor_db"] = figures["mel_floor"]["lsd_db"] - figures["codec"]["lsd_db"]
    return figures
