"""Does a note of a library patch find its patch when it was recorded otherwise than the library was?

Each patch is played at one of the library's keys, and at the library's velocity but for the first condition. Every
condition disturbs the same notes; the shipped search answers as a user would be answered, and beside it each
representation alone ranks the same candidates.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from timbrel.audio import SAMPLE_RATE, Audio
from timbrel.encoders import disturb
from timbrel.engine.engine import Engine
from timbrel.evaluation.patch_recall import AT, Outcome, Ranking, ask
from timbrel.evaluation.queries import Query, plan, play, replay_library
from timbrel.evaluation.report import share

Disturb = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Progress = Callable[[str, int, int], None]
# No noise: far below 16 bits.
CLEAN_DB = 120.0
# Vorbis at its lowest quality: about 48 kbit/s of these mono notes.
LOSSIEST = 1.0


def _lossy(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    packed = io.BytesIO()
    soundfile.write(
        packed,
        np.clip(audio, -1.0, 1.0),
        SAMPLE_RATE,
        format="OGG",
        subtype="VORBIS",
        compression_level=LOSSIEST,
    )
    packed.seek(0)
    heard, _ = soundfile.read(packed, dtype="float32")
    return np.asarray(heard)


CONDITIONS: Mapping[str, Disturb] = {
    "velocity": lambda audio, rng: audio,
    "noise": lambda audio, rng: disturb.add_noise(audio, 30.0, rng),
    "equaliser": lambda audio, rng: disturb.tilt(audio, float(rng.choice([-3.0, 3.0]))),
    "room": lambda audio, rng: disturb.room(audio, 0.4, -10.0, rng),
    "lossy": _lossy,
    "lead_in": lambda audio, rng: disturb.lead_in(audio, float(rng.uniform(0.0, 1.5))),
    "level": lambda audio, rng: disturb.gain(audio, float(rng.choice([-6.0, 6.0]))),
}
"""By name: another velocity; white noise 30 dB below; a tilt of 3 dB an octave; a room of 0.4 s, 10 dB below; Vorbis at
its lowest quality; up to 1.5 s of silence before; 6 dB louder or softer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSettings:
    """``patches`` of the library, each asked once a condition; other velocities are drawn from the given range."""

    patches: int
    min_velocity: int
    max_velocity: int
    seed: int


def measure(
    engine: Engine,
    settings: ConditionSettings,
    *,
    banks: Path,
    library: Iterable[tuple[int, np.ndarray]] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """``recall1`` and ``recall10`` in the mean over the conditions, and both by condition and way of searching.

    ``banks`` and ``library``: as in ``patch_recall.measure``. A patch that gives no sound counts as not found. Raises
    DataError when a patch of the library cannot be rendered any more.
    """
    bundle = engine.bundle
    if library is None:
        library = replay_library(
            bundle.patches, bundle.renders, banks=banks, progress=lambda *n: progress("library", *n)
        )
    ranking = Ranking(engine, library)
    louder = plan(
        bundle.patches,
        bundle.renders,
        count=settings.patches,
        velocities=range(settings.min_velocity, settings.max_velocity + 1),
        seed=settings.seed,
    )
    own = {(render.patch_id, render.key): render.velocity for render in bundle.renders}
    alike = [replace(each, velocity=own[each.patch.patch_id, each.key]) for each in louder]
    by_condition: dict[str, dict[str, dict[str, float]]] = {}
    for number, (name, disturbed) in enumerate(CONDITIONS.items()):
        plans = louder if name == "velocity" else alike
        queries, mute = play(plans, noise_db=CLEAN_DB, banks=banks, seed=settings.seed)
        outcomes = []
        for place, query in enumerate(queries):
            rng = np.random.default_rng((settings.seed, number, place))
            outcomes.append(ask(engine, ranking, _heard(query, disturbed(query.audio.samples, rng))))
            progress(name, place + 1, len(queries))
        by_condition[name] = _recall(outcomes, len(queries) + len(mute))
    ways = {way for found in by_condition.values() for way in found}
    mean = {
        way: {
            f"recall{k}": float(np.mean([found[way][f"recall{k}"] for found in by_condition.values()]))
            for k in AT
        }
        for way in sorted(ways)
    }
    return {
        "bundle": bundle.id,
        "settings": asdict(settings),
        **mean["search"],
        "mean": mean,
        "by_condition": by_condition,
    }


def _heard(query: Query, samples: np.ndarray) -> Query:
    return replace(query, audio=Audio(np.asarray(samples, dtype=np.float32), SAMPLE_RATE))


def _recall(outcomes: list[Outcome], total: int) -> dict[str, dict[str, float]]:
    ways = list(outcomes[0].ranks) if outcomes else []
    return {
        way: {f"recall{k}": share(sum(0 < each.ranks[way] <= k for each in outcomes), total) for k in AT}
        for way in ways
    }
