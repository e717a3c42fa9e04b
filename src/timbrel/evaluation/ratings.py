"""Human ratings of dissimilarity against distances (the protocol of Tian, Lattner and Saitis, ISMIR 2025).

    <folder>/sounds/<dataset>/*.aiff          the stimuli (any format that can be read), in the order of their names
    <folder>/true_dissim/<dataset>.txt        a square matrix of ratings, rows and columns in that order

Of each dataset the pairs above the diagonal are scaled to 0 … 1, ratings and distances alike. Errors are of pairs,
ranks are of each stimulus's list of all others; pairs and stimuli of all datasets count alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.spatial import distance

from timbrel.audio import read, resample
from timbrel.encoders.frontend import clip
from timbrel.errors import DataError
from timbrel.evaluation.encoders import EmbedAll

METRICS = {"cosine": "cosine", "l2": "euclidean"}
# Pairs whose ratings differ by less say nothing about which of them is the nearer.
TRIPLET_MARGIN = 0.1
FEWEST = 3
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class RatedSounds:
    """One dataset: ``clips`` [n, 72000] as encoders hear them, ``ratings`` [n, n] as they were given."""

    name: str
    clips: np.ndarray
    ratings: np.ndarray


def read_rated(folder: Path) -> list[RatedSounds]:
    """Every dataset of ``folder``. Raises DataError when there is none, or when sounds and ratings do not fit."""
    found = []
    for table in sorted((folder / "true_dissim").glob("*.txt")):
        sounds = folder / "sounds" / table.stem
        files = sorted(each for each in sounds.glob("*") if each.is_file() and not each.name.startswith("."))
        try:
            ratings = np.loadtxt(table, ndmin=2)
        except ValueError as error:
            raise DataError(f"{table} is not a matrix of numbers ({error})") from error
        if ratings.shape != (len(files), len(files)):
            raise DataError(
                f"{table} is {ratings.shape}, but {sounds} holds {len(files)} sounds: one row a sound"
            )
        if len(files) < FEWEST or not np.isfinite(ratings).all():
            raise DataError(f"{table}: at least {FEWEST} sounds, and a rating for every pair of them")
        clips = np.stack([clip(resample(read(each)).samples) for each in files])
        found.append(RatedSounds(table.stem, clips, ratings))
    if not found:
        raise DataError(
            f"{folder} holds no true_dissim/*.txt: a folder with sounds/ and true_dissim/ is wanted"
        )
    return found


def agreement(distances: np.ndarray, ratings: np.ndarray) -> dict[str, list[float]]:
    """Of one dataset, both [n, n]: ``mae`` by pair; ``ndcg``, ``spearman``, ``kendall`` and ``triplet`` by stimulus.

    Above the diagonal counts. A stimulus for which a figure is not defined (all ratings alike) has none.
    """
    pairs = np.triu_indices(len(ratings), 1)
    scaled = []
    for values in (distances, ratings):
        upper = values[pairs]
        span = upper.max() - upper.min()
        if not span > 0:
            raise DataError("all pairs are rated, or measured, alike: there is nothing to compare")
        square = np.zeros_like(values, dtype=np.float64)
        square[pairs] = (upper - upper.min()) / span
        scaled.append(square + square.T)
    measured, rated = scaled
    figures: dict[str, list[float]] = {
        "mae": np.abs(measured[pairs] - rated[pairs]).tolist(),
        "ndcg": [],
        "spearman": [],
        "kendall": [],
        "triplet": [],
    }
    for i in range(len(rated)):
        others = np.arange(len(rated)) != i
        near, wanted = measured[i, others], rated[i, others]
        figures["ndcg"].append(_ndcg(near, 1.0 - wanted))
        if np.ptp(near) > 0 and np.ptp(wanted) > 0:
            figures["spearman"].append(float(stats.spearmanr(near, wanted).statistic))
            figures["kendall"].append(float(stats.kendalltau(near, wanted).statistic))
        apart = wanted[:, None] - wanted[None, :]
        asked = np.triu(np.abs(apart) > TRIPLET_MARGIN, 1)
        if asked.any():
            same = np.sign(near[:, None] - near[None, :]) == np.sign(apart)
            figures["triplet"].append(float(same[asked].mean()))
    return figures


def measure(
    datasets: Sequence[RatedSounds],
    embed: EmbedAll,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """By encoder and metric: the mean of each figure of ``agreement`` over all datasets."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number, dataset in enumerate(datasets):
        for name, vectors in embed(dataset.clips).items():
            for metric, kind in METRICS.items():
                distances = distance.squareform(distance.pdist(vectors.astype(np.float64), kind))
                figures = found.setdefault(name, {}).setdefault(metric, {})
                for figure, values in agreement(distances, dataset.ratings).items():
                    figures.setdefault(figure, []).extend(values)
        progress("datasets", number + 1, len(datasets))
    return {
        name: {
            metric: {
                figure: float(np.mean(values)) if values else math.nan for figure, values in figures.items()
            }
            for metric, figures in by_metric.items()
        }
        for name, by_metric in found.items()
    }


def _ndcg(distances: np.ndarray, relevance: np.ndarray) -> float:
    """Normalised discounted cumulative gain of the order by distance (Järvelin and Kekäläinen 2002), linear gain.

    Ties in distance stand in the order of the sounds' names.
    """
    discount = 1.0 / np.log2(np.arange(2, len(relevance) + 2))
    best = float(np.sort(relevance)[::-1] @ discount)
    return float(relevance[np.argsort(distances, kind="stable")] @ discount) / best if best > 0 else 1.0
