"""What the second stage is worth, and how many candidates it needs.

Of each query: where its answer stands by stage 1 alone, by stage 2 alone, by the order of the search over everything
that the gate leaves (exhaustive, with and without the scales of ``library.hubness``), and by the search, which orders
as many candidates of stage 1 as it is given; and how much of the exhaustive top ten that search finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from timbrel.evaluation.report import share
from timbrel.library.two_stage import blended

COUNTS = (25, 50, 100, 200, 400, 800)
TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One query. Ranks are from 1, 0 for an answer that is not there; ``two_stage`` and ``overlap`` by number of
    candidates.
    """

    stage1: int
    stage2: int
    exhaustive: int
    unscaled: int
    two_stage: Mapping[int, int]
    overlap: Mapping[int, float]


def rank_of(wanted: int, labels: np.ndarray, distances: np.ndarray) -> int:
    """Rank (from 1) of a label when each stands in the list once, by its nearest entry; 0 when it is absent.

    ``labels`` int [n], ``distances`` [n]. Ties count against the wanted label.
    """
    own = distances[labels == wanted]
    if not len(own):
        return 0
    nearer = np.unique(labels[(distances <= own.min()) & (labels != wanted)])
    return len(nearer) + 1


def top_labels(labels: np.ndarray, distances: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` labels, nearest first, each once; of equal distances the former."""
    ordered = labels[np.argsort(distances, kind="stable")]
    _, first = np.unique(ordered, return_index=True)
    found: np.ndarray = ordered[np.sort(first)[:count]]
    return found


def compare(
    stage1: np.ndarray,
    stage2: np.ndarray,
    labels: np.ndarray,
    wanted: int,
    *,
    stage1_share: float = 0.0,
    scales: np.ndarray | None = None,
    counts: Sequence[int] = COUNTS,
) -> Compared:
    """One query against the n entries that the gate leaves it: distances by both stages, labels, scales; all [n]."""
    unscaled = blended(stage1, stage2, stage1_share)
    order = unscaled if scales is None else unscaled / scales
    nearest = np.argsort(stage1, kind="stable")
    best = top_labels(labels, order, TOP)
    two_stage, overlap = {}, {}
    for count in counts:
        kept = np.sort(nearest[:count])
        two_stage[count] = rank_of(wanted, labels[kept], order[kept])
        overlap[count] = share(
            len(np.intersect1d(best, top_labels(labels[kept], order[kept], TOP))), len(best)
        )
    return Compared(
        stage1=rank_of(wanted, labels, stage1),
        stage2=rank_of(wanted, labels, stage2),
        exhaustive=rank_of(wanted, labels, order),
        unscaled=rank_of(wanted, labels, unscaled),
        two_stage=two_stage,
        overlap=overlap,
    )


def summary(
    compared: Sequence[Compared], at: Mapping[str, int], *, total: int | None = None
) -> dict[str, Any]:
    """Shares of queries by way of searching, under the names of ``at`` (``{"top1": 1}``); ``overlap10`` in the mean.

    ``total``: queries in all, where some had no sound and count as not found.
    """
    total = len(compared) if total is None else total

    def found(ranks: Iterable[int]) -> dict[str, float]:
        ranks = list(ranks)
        return {name: share(sum(0 < rank <= k for rank in ranks), total) for name, k in at.items()}

    counts = list(compared[0].two_stage) if compared else []
    return {
        "stage1": found(each.stage1 for each in compared),
        "stage2": found(each.stage2 for each in compared),
        "exhaustive": found(each.exhaustive for each in compared),
        "exhaustive, unscaled": found(each.unscaled for each in compared),
        "two_stage": {
            str(count): found(each.two_stage[count] for each in compared)
            | {f"overlap{TOP}": float(np.nanmean([each.overlap[count] for each in compared]))}
            for count in counts
        },
    }
