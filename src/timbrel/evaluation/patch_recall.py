"""Does a note of a library patch, played again at another velocity and with light noise, find its patch?

The shipped search answers every query as a user's would be answered. Beside it, on the same queries and the
same candidates, every render is ranked by one representation alone: stage 1, stage 2, and two that need no
training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.encoders import frontend
from timbrel.encoders.baselines import BASELINES
from timbrel.engine.engine import Engine
from timbrel.errors import DataError
from timbrel.evaluation.queries import Query, plan, play, replay_library
from timbrel.evaluation.report import share
from timbrel.library.coverage import Coverage
from timbrel.pitch.gate import Decision

AT = (1, 10)
MISSES_SHOWN = 20
BATCH = 64
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
    ranking = Ranking(engine, library)
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
            outcomes.append(ask(engine, ranking, query))
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


class Ranking:
    """Ranks patches by one representation, over the renders that the gate leaves."""

    def __init__(self, engine: Engine, library: Iterable[tuple[int, np.ndarray]]) -> None:
        self._engine = engine
        bundle = engine.bundle
        self._coverage = Coverage(bundle.renders, bundle.patch_of)
        self._baselines = _baseline_vectors(library, len(bundle.renders))

    def candidates(self, midi: float | None) -> np.ndarray:
        """Rows of the renders that the shipped gate admits; all of them without a pitch."""
        bundle = self._engine.bundle
        if midi is None:
            return np.arange(len(bundle.renders))
        window = self._coverage.window(midi, least=bundle.manifest.search.window_semitones, patches=max(AT))
        return bundle.index.ids_within(midi, window)

    def ranks(self, query: Query, midi: float | None, rows: np.ndarray) -> dict[str, int]:
        """The rank of the query's own patch among ``rows``, by each representation."""
        bundle = self._engine.bundle
        stage1, stage2 = self._engine.embed(query.audio)
        everything = bundle.index.query(stage1, pitch=None, window=0, k=len(bundle.renders))
        distances = {"stage1": np.empty(len(bundle.renders), dtype=np.float32)}
        distances["stage1"][everything.ids] = everything.distances
        distances["stage2"] = 1.0 - bundle.stage2.astype(np.float32) @ stage2
        clip = frontend.clip(query.audio.samples)[None]
        for name, encoder in BASELINES.items():
            distances[name] = 1.0 - self._baselines[name] @ _unit(encoder(clip))[0]
        number = next(n for n, patch in enumerate(bundle.patches) if patch.patch_id == query.patch.patch_id)
        return {
            name: rank_of(number, bundle.patch_of[rows], values[rows]) for name, values in distances.items()
        }


def _baseline_vectors(library: Iterable[tuple[int, np.ndarray]], renders: int) -> dict[str, np.ndarray]:
    """Each baseline's vectors of all renders, of length 1: [renders, d]. Holds only a few notes at a time."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in BASELINES}
    rows: list[int] = []
    notes = iter(library)
    while batch := list(islice(notes, BATCH)):
        rows += [row for row, _ in batch]
        clips = np.stack([frontend.clip(note.astype(np.float32) / 32768.0) for _, note in batch])
        for name, encoder in BASELINES.items():
            parts[name].append(_unit(encoder(clips)))
    if sorted(rows) != list(range(renders)):
        raise DataError(f"{len(rows)} renders came for a library of {renders}: build the library again")
    order = np.argsort(rows)
    return {name: np.concatenate(vectors)[order] for name, vectors in parts.items()}


def rank_of(wanted: int, labels: np.ndarray, distances: np.ndarray) -> int:
    """Rank (from 1) of a label when each stands in the list once, by its nearest entry; 0 when it is absent.

    ``labels`` int [n], ``distances`` [n]. Ties count against the wanted label.
    """
    own = distances[labels == wanted]
    if not len(own):
        return 0
    nearer = np.unique(labels[(distances <= own.min()) & (labels != wanted)])
    return len(nearer) + 1


def ask(engine: Engine, ranking: Ranking, query: Query) -> Outcome:
    """Where the query's patch stands, by every way of searching."""
    most = max(AT)
    gated = engine.search(query.audio, k=most)
    open_ = engine.search(query.audio, k=most, gate="off")
    midi = gated.query.gate.midi
    rows = ranking.candidates(midi)
    ranks = {
        "search": _place(query, [hit.patch_id for hit in gated.hits]),
        "search, gate off": _place(query, [hit.patch_id for hit in open_.hits]),
    }
    ranks |= {f"{name} alone": rank for name, rank in ranking.ranks(query, midi, rows).items()}
    everything = ranking.candidates(None)
    open_ranks = ranking.ranks(query, None, everything)
    ranks |= {f"{name} alone, gate off": rank for name, rank in open_ranks.items()}
    return Outcome(decision=gated.query.gate.decision, candidates=len(rows), ranks=ranks)


def _place(query: Query, patch_ids: Sequence[str]) -> int:
    return patch_ids.index(query.patch.patch_id) + 1 if query.patch.patch_id in patch_ids else 0


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


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
