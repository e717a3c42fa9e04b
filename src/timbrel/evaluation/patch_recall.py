"""Does a note of a library patch, played again at another velocity and with light noise, find its patch?

The shipped search answers every query as a user's would be answered. Beside it, on the same queries and the
same candidates, every render is ranked by one representation alone: stage 1, stage 2, and two that need no
training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.engine.engine import Engine
from timbrel.engine.results import SearchResult
from timbrel.evaluation.gallery import Gallery
from timbrel.evaluation.queries import Query, plan, play, replay_library
from timbrel.evaluation.report import share
from timbrel.evaluation.stage_worth import rank_of
from timbrel.pitch.gate import Decision

AT = (1, 10)
MISSES_SHOWN = 20
# Keys that the map is trained on, and that lie between those the library is rendered at.
OTHER_KEYS = range(48, 73)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallSettings:
    """``patches`` queries per condition; white noise ``noise_db`` below the note; a velocity from the given
    range.
    """

    patches: int
    noise_db: float
    min_velocity: int
    max_velocity: int
    seed: int


def measure(
    engine: Engine,
    settings: RecallSettings,
    *,
    banks: Path,
    library: Iterable[tuple[int, np.ndarray]] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Both conditions: keys that the library was rendered at, and keys that it was not.

    ``banks`` is the folder of the user's soundfonts, which the library's presets of theirs need. ``library``
    gives (row, note int16 [samples]) of each render, for the baselines; without it they are made again.
    Raises DataError when a patch of the library cannot be rendered any more.
    """
    bundle = engine.bundle
    if library is None:
        library = replay_library(
            bundle.patches, bundle.renders, banks=banks, progress=lambda *n: progress("library", *n)
        )
    gallery = Gallery(engine, library)
    velocities = range(settings.min_velocity, settings.max_velocity + 1)
    conditions: dict[str, Any] = {}
    for name, keys in (("library_keys", None), ("other_keys", OTHER_KEYS)):
        plans = plan(
            bundle.patches, bundle.renders, count=settings.patches, velocities=velocities, keys=keys,
            seed=settings.seed,
        )  # fmt: skip
        queries, mute = play(plans, noise_db=settings.noise_db, banks=banks, seed=settings.seed)
        outcomes = []
        for number, query in enumerate(queries):
            outcomes.append(ask(engine, gallery, query))
            progress(name, number + 1, len(queries))
        conditions[name] = _summary(queries, outcomes, mute=len(mute))
    return {
        "bundle": bundle.id,
        "library": {"patches": len(bundle.patches), "renders": len(bundle.renders)},
        "settings": asdict(settings),
        "conditions": conditions,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One query: its gate decision, and the patch's rank (from 1; 0 when absent) by each way of searching."""

    decision: Decision
    candidates: int
    ranks: Mapping[str, int]


def ask(engine: Engine, gallery: Gallery, query: Query) -> Outcome:
    """Where the query's patch stands, by every way of searching."""
    most = max(AT)
    gated = engine.search(query.audio, k=most, fold=False)
    open_ = engine.search(query.audio, k=most, gate="off", fold=False)
    rows = gallery.candidates(gated.query.gate.midi)
    ranks = {
        "search": place(query, gated),
        "search, gate off": place(query, open_),
    }
    patch_of = engine.bundle.patch_of
    number = gallery.number(query.patch.patch_id)
    distances = gallery.distances(query.audio)
    ranks |= {
        f"{name} alone": rank_of(number, patch_of[rows], values[rows]) for name, values in distances.items()
    }
    ranks |= {
        f"{name} alone, gate off": rank_of(number, patch_of, values) for name, values in distances.items()
    }
    return Outcome(decision=gated.query.gate.decision, candidates=len(rows), ranks=ranks)


def place(query: Query, answer: SearchResult) -> int:
    """The rank (from 1) of the query's patch among the hits; 0 when it is not there."""
    found = [hit.patch_id for hit in answer.hits]
    return found.index(query.patch.patch_id) + 1 if query.patch.patch_id in found else 0


def _summary(queries: Sequence[Query], outcomes: Sequence[Outcome], *, mute: int) -> dict[str, Any]:
    """A query without a sound counts as not found, by every way of searching."""
    total = len(queries) + mute
    methods = list(outcomes[0].ranks) if outcomes else []
    results = {
        method: {
            f"top{k}": share(sum(0 < outcome.ranks[method] <= k for outcome in outcomes), total) for k in AT
        }
        for method in methods
    }
    families: dict[str, list[bool]] = {}
    for query, outcome in zip(queries, outcomes, strict=True):
        families.setdefault(query.patch.family, []).append(0 < outcome.ranks["search"] <= max(AT))
    decisions = [outcome.decision.value for outcome in outcomes]
    missed = [
        {"patch_id": q.patch.patch_id, "name": q.patch.name, "key": q.key, "velocity": q.velocity}
        for q, outcome in zip(queries, outcomes, strict=True)
        if outcome.ranks["search"] == 0
    ]
    return {
        "queries": total,
        "queries_without_sound": mute,
        "gate": {decision: decisions.count(decision) for decision in sorted(set(decisions))},
        "median_candidates": float(np.median([o.candidates for o in outcomes])) if outcomes else 0.0,
        "recall": results,
        f"top{max(AT)}_by_family": {
            family: {"queries": len(found), "share": share(sum(found), len(found))}
            for family, found in sorted(families.items())
        },
        "missed": missed[:MISSES_SHOWN],
    }
