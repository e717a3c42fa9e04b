"""Do instruments land by their family on the map? k nearest neighbours, beside what guessing would get. numpy only."""

from __future__ import annotations

import numpy as np

from timbrel.pgesam.evaluation import family_accuracy


def family_figures(
    known: np.ndarray, known_family: np.ndarray, query: np.ndarray, query_family: np.ndarray, *, k: int
) -> dict[str, float]:
    """``accuracy``: share of ``query`` points [n, d] whose family wins the vote of the ``k`` nearest ``known`` ones.

    ``chance``: what a guess drawn from the known families' shares gets on average. ``majority``: what the most
    frequent known family as the answer to everything gets.
    """
    families = max(known_family.max(), query_family.max()) + 1
    shares = np.bincount(known_family, minlength=families) / len(known_family)
    asked = np.bincount(query_family, minlength=families) / len(query_family)
    return {
        "accuracy": family_accuracy(known, known_family, query, query_family, k=k),
        "chance": float(shares @ asked),
        "majority": float(asked[shares.argmax()]),
        "known": len(known),
        "queries": len(query),
    }


def left_out_accuracy(points: np.ndarray, family: np.ndarray, *, k: int) -> float:
    """The same vote among ``points`` themselves [n, d], each asked with itself left out."""
    hits = 0.0
    for i in range(len(points)):
        others = np.arange(len(points)) != i
        hits += family_accuracy(points[others], family[others], points[[i]], family[[i]], k=k)
    return hits / len(points)
