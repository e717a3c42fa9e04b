"""The search over a bundle: a question's vectors, filters and a page, to hits.

    question ─► mask of the filters ─► window ─► index ─► exact style order ─► near-duplicates as one ─► page

Stage 1 proposes as many renders as the bundle says. A page beyond what they give is filled from twice as many, and so
on; what was found first stays in front. So the list behind the pages does not depend on which page is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np

from timbrel.engine.asking import Question
from timbrel.engine.index import Gate, Index
from timbrel.engine.results import Hit, Query, SearchResult
from timbrel.engine.terms import Terms
from timbrel.library import two_stage
from timbrel.library.bundle import Bundle
from timbrel.library.coverage import WIDEST, Coverage
from timbrel.library.filters import Filters, Shelves
from timbrel.library.index import Found
from timbrel.library.two_stage import Match
from timbrel.pitch.gate import Decision, GateDecision

Timed = Callable[[str], AbstractContextManager[Callable[..., None]]]


class Search:
    """Answers questions over one bundle. Immutable and thread-safe."""

    def __init__(self, bundle: Bundle, timed: Timed, index: Index) -> None:
        """``timed(stage)`` is entered around each search in the ``index`` and each ordering, and takes facts about
        it."""
        self._bundle = bundle
        self._index = index
        self._timed = timed
        self._shelves = Shelves(bundle.patches, bundle.renders, bundle.patch_of)
        self._plain = Coverage(bundle.renders, bundle.patch_of)
        self.lowest, self.highest = self._plain.lowest, self._plain.highest
        """The pitches (MIDI) between which the library sounds."""
        leaders = bundle.leader_of
        self._folded = self._plain
        # Number of each render's group of near-duplicates: int [renders].
        self._group_of = leaders[bundle.patch_of]
        # Members of the groups that have several, by leader.
        self._groups: dict[int, list[int]] = {}
        for follower in np.flatnonzero(leaders != np.arange(len(leaders))).tolist():
            leader = int(leaders[follower])
            self._groups.setdefault(leader, [leader]).append(follower)
        if self._groups:
            self._folded = Coverage(bundle.renders, self._group_of)

    def answer(self, question: Question, terms: Terms) -> SearchResult:
        """The page that is asked for, and how many hits there are in all.

        Raises InputError for a family or a bank that the library does not have.
        """
        allow = self._allow(terms.filters, question.leave_out)
        if question.stage1 is None or question.stage2 is None:
            return SearchResult(query=question.query, hits=(), total=0, offset=terms.offset)
        coverage = self._folded if terms.fold else self._plain
        midi, window = question.query.gate.midi, 0
        octaves = terms.octaves and midi is not None
        if midi is not None:
            least = self._bundle.manifest.search.window_semitones
            window = coverage.window(midi, least=least, patches=terms.k, octaves=octaves, allow=allow)
        gate = Gate(
            midi=midi, window=window, octaves=octaves, filters=terms.filters, leave_out=question.leave_out,
            allow=allow,
        )  # fmt: skip
        total = coverage.reached(midi, window, octaves=octaves, allow=allow)
        matches = self._ranked(question.stage1, question.stage2, gate, terms)[terms.offset :]
        return SearchResult(
            query=_explained(question.query, self._explain(question.query.gate, gate, total)),
            hits=tuple(self._hit(match, allow, terms.fold) for match in matches),
            total=total,
            offset=terms.offset,
        )

    def _allow(self, filters: Filters, leave_out: str | None) -> np.ndarray | None:
        """Which renders may be found, bool [renders]; None for all."""
        allow = self._shelves.allow(filters)
        if leave_out is None:
            return allow
        allow = np.ones(len(self._bundle.renders), dtype=bool) if allow is None else allow
        allow[self._bundle.rows_of(leave_out)] = False
        return allow

    def _ranked(self, stage1: np.ndarray, stage2: np.ndarray, gate: Gate, terms: Terms) -> list[Match]:
        """The best ``offset + k`` matches, each of another patch or group."""
        bundle, wanted = self._bundle, terms.offset + terms.k
        labels = self._group_of if terms.fold else bundle.patch_of
        matches: list[Match] = []
        seen: set[int] = set()
        before = np.empty(0, dtype=np.int64)
        count = bundle.manifest.search.candidates
        while True:
            with self._timed("index") as note:
                found = self._index.query(stage1, gate, count)
                note(candidates=len(found.ids))
            with self._timed("stage2"):
                fresh = ~np.isin(found.ids, before)
                ordered = two_stage.order(
                    Found(found.ids[fresh], found.distances[fresh]),
                    query=stage2, stage2=bundle.styles, patch_of=labels, k=count, scales=bundle.scales,
                    stage1_share=bundle.manifest.search.stage1_share,
                )  # fmt: skip
            new = [match for match in ordered if int(labels[match.row]) not in seen]
            seen |= {int(labels[match.row]) for match in new}
            matches += new
            if len(matches) >= wanted or len(found.ids) < count:
                return matches[:wanted]
            before, count = found.ids, 2 * count

    def _hit(self, match: Match, allow: np.ndarray | None, fold: bool) -> Hit:
        render = self._bundle.renders[match.row]
        patch = self._bundle.patch(render.patch_id)
        group = self._groups.get(int(self._group_of[match.row]), [])
        others = (self._bundle.patches[number].patch_id for number in group) if fold else ()
        return Hit(
            patch_id=patch.patch_id,
            name=patch.name,
            family=patch.family,
            bank=patch.bank,
            pitch=None if math.isnan(render.f0_midi) else render.f0_midi,
            stage1_distance=match.stage1_distance,
            stage2_distance=match.stage2_distance,
            distance=match.distance,
            x=patch.x,
            y=patch.y,
            also=tuple(
                other
                for other in others
                if other != patch.patch_id and (allow is None or allow[self._bundle.rows_of(other)].any())
            ),
        )

    def _explain(self, decision: GateDecision, gate: Gate, total: int) -> str:
        """The gate's reason, and what the search did with it."""
        if gate.midi is None:
            searched = "" if decision.decision is Decision.OFF else "; all pitches were searched"
            nothing = "; the filters leave no render: widen them" if total == 0 else ""
            return f"{decision.reason}{searched}{nothing}"
        least = self._bundle.manifest.search.window_semitones
        around = " in every octave" if gate.octaves else ""
        widened = f", widened from ±{least} to reach most patches" if gate.window > least else ""
        searched = f"{decision.reason}; searched within ±{gate.window} semitones{around}{widened}"
        if total == 0:
            left = "that the filters leave " if gate.allow is not None else ""
            advice = (
                "ask with octaves, another pitch or gate=off"
                if gate.allow is None
                else ("widen the filters, or ask with octaves, another pitch or gate=off")
            )
            return f"{decision.reason}; no render {left}lies within {WIDEST} semitones: {advice}"
        return searched


def _explained(query: Query, reason: str) -> Query:
    return replace(query, gate=replace(query.gate, reason=reason))
