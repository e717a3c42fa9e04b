"""Does a note of a library patch find its patch when it was recorded otherwise than the library was?

Each patch is played at one of the library's keys, and at the library's velocity but for one condition. Every
condition disturbs the same notes; the shipped search answers as a user would be answered, and beside it each
encoder alone ranks the same candidates. Undisturbed notes say what is lost before any disturbance; they are not in the
mean.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from timbrel.audio import SAMPLE_RATE, Audio
from timbrel.encoders import disturb
from timbrel.engine.engine import Engine
from timbrel.evaluation.gallery import Gallery, plain_baselines
from timbrel.evaluation.patch_recall import place
from timbrel.evaluation.queries import Query, plan, play, replay_library
from timbrel.evaluation.report import share
from timbrel.evaluation.stage_worth import Compared, compare, rank_of, summary

if TYPE_CHECKING:
    from timbrel.evaluation.encoders import EmbedAll

Disturb = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Progress = Callable[[str, int, int], None]
RECALLS = {"recall1": 1, "recall10": 10}
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


UNDISTURBED = "undisturbed"
CONDITIONS: Mapping[str, Disturb] = {
    UNDISTURBED: lambda audio, rng: audio,
    "velocity": lambda audio, rng: audio,
    "noise": lambda audio, rng: disturb.add_noise(audio, 30.0, rng),
    "equaliser": lambda audio, rng: disturb.tilt(audio, float(rng.choice([-3.0, 3.0]))),
    "room": lambda audio, rng: disturb.room(audio, 0.4, -10.0, rng),
    "lossy": _lossy,
    "lead_in": lambda audio, rng: disturb.lead_in(audio, float(rng.uniform(0.0, 1.5))),
    "level": lambda audio, rng: disturb.gain(audio, float(rng.choice([-6.0, 6.0]))),
}
"""By name: as in the library; another velocity; white noise 30 dB below; a tilt of 3 dB an octave; a room of 0.4 s,
10 dB below; Vorbis at its lowest quality; up to 1.5 s of silence before; 6 dB louder or softer."""


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
    beside: EmbedAll = plain_baselines,
    progress: Progress = lambda what, done, total: None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(the search's figures, those of each encoder ``beside`` by name): ``recall1`` and ``recall10`` in the mean over
    the conditions, and by condition.

    The search's hold those of stage 1 and stage 2 alone as well, and ``stages`` (``stage_worth.summary`` over all
    conditions of the mean, behind the gate and with all pitches). ``banks`` and ``library``: as in
    ``patch_recall.measure``. A patch that gives no sound counts as not found. Raises DataError when a patch of the
    library cannot be rendered any more.
    """
    bundle = engine.bundle
    if library is None:
        library = replay_library(
            bundle.patches, bundle.renders, banks=banks, progress=lambda *n: progress("library", *n)
        )
    gallery = Gallery(engine, library, beside, progress=progress)
    louder = plan(
        bundle.patches,
        bundle.renders,
        count=settings.patches,
        velocities=range(settings.min_velocity, settings.max_velocity + 1),
        seed=settings.seed,
    )
    own = {(render.patch_id, render.key): render.velocity for render in bundle.renders}
    alike = [replace(each, velocity=own[each.patch.patch_id, each.key]) for each in louder]
    played = [play(plans, noise_db=CLEAN_DB, banks=banks, seed=settings.seed) for plans in (alike, louder)]
    ranks: dict[str, dict[str, list[int]]] = {}
    compared: dict[str, list[Compared]] = {"gated": [], "all_pitches": []}
    asked = 0
    for number, (name, disturbed) in enumerate(CONDITIONS.items()):
        queries, mute = played[name == "velocity"]
        for count, query in enumerate(queries):
            rng = np.random.default_rng((settings.seed, number, count))
            found, stages = _ask(engine, gallery, _heard(query, disturbed(query.audio.samples, rng)))
            for way, rank in found.items():
                ranks.setdefault(way, {}).setdefault(name, []).append(rank)
            if name != UNDISTURBED:
                for way, each in stages.items():
                    compared[way].append(each)
            progress(name, count + 1, len(queries))
        for by_condition in ranks.values():
            by_condition.setdefault(name, []).extend([0] * len(mute))
        asked += 0 if name == UNDISTURBED else len(queries) + len(mute)
    figures = {way: _figures(by_condition) for way, by_condition in ranks.items()}
    worth = {way: summary(each, RECALLS, total=asked) for way, each in compared.items()}
    ours = {
        "bundle": bundle.id,
        "settings": asdict(settings),
        **figures.pop("search"),
        **{stage: figures.pop(stage) for stage in ("stage1", "stage2")},
        "stages": {"candidates": bundle.manifest.search.candidates, **worth},
    }
    return ours, figures


def _ask(engine: Engine, gallery: Gallery, query: Query) -> tuple[dict[str, int], dict[str, Compared]]:
    """The rank of the query's patch by each way of searching; and the stages compared."""
    bundle = engine.bundle
    answer = engine.search(query.audio, k=max(RECALLS.values()), fold=False)
    rows = gallery.candidates(answer.query.gate.midi)
    wanted = gallery.number(query.patch.patch_id)
    distances = gallery.distances(query.audio)
    ranks = {"search": place(query, answer)}
    ranks |= {name: rank_of(wanted, bundle.patch_of[rows], each[rows]) for name, each in distances.items()}
    stages = {
        way: compare(
            distances["stage1"][among],
            distances["stage2"][among],
            bundle.patch_of[among],
            wanted,
            stage1_share=bundle.manifest.search.stage1_share,
            scales=None if bundle.scales is None else bundle.scales[among],
        )
        for way, among in (("gated", rows), ("all_pitches", np.arange(len(bundle.renders))))
    }
    return ranks, stages


def _heard(query: Query, samples: np.ndarray) -> Query:
    return replace(query, audio=Audio(np.asarray(samples, dtype=np.float32), SAMPLE_RATE))


def _figures(ranks: Mapping[str, list[int]]) -> dict[str, Any]:
    """Of one way of searching, ranks by condition -> recall in the mean over the conditions, and by condition."""
    by_condition = {
        name: {figure: share(sum(0 < rank <= k for rank in each), len(each)) for figure, k in RECALLS.items()}
        for name, each in ranks.items()
    }
    mean = {
        figure: float(np.mean([found[figure] for name, found in by_condition.items() if name != UNDISTURBED]))
        for figure in RECALLS
    }
    return {**mean, "by_condition": by_condition}
