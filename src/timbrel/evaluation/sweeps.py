"""Sweep order: does a distance grow as one knob is turned? (Combes, Weinzierl and Obermayer 2025)

Of the 20 sounds of a sweep the first is asked for the order of the other 19 by distance, and the last is: Spearman's
correlation of either order with the knob's, and their mean. A figure is the mean over an attribute's presets, then over
attributes, so that each attribute counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.spatial import distance

from timbrel.encoders.frontend import clip
from timbrel.errors import DataError
from timbrel.evaluation.encoders import EmbedAll
from timbrel.notes.sweeps import Sweep, load

# The protocol's own is L1; cosine is what the index compares by.
METRICS: Mapping[str, str] = {"l1": "cityblock", "cosine": "cosine"}
FEWEST = 3
_ALIKE = 1e-12  # what is left of equal distances after rounding
Progress = Callable[[str, int, int], None]


def order_agreement(distances: npt.NDArray[np.floating[Any]]) -> float:
    """Of a sweep's ``distances`` [n, n], sounds in the knob's order: -1 ... 1, 1 when both orders are the knob's.

    Equal distances share a rank. Where all are equal there is no order, which counts 0. Raises DataError for fewer than
    three sounds or distances that are not finite.
    """
    count = len(distances)
    if distances.shape != (count, count) or count < FEWEST or not np.isfinite(distances).all():
        raise DataError(f"a sweep has {FEWEST} sounds or more and finite distances, not {distances.shape}")
    away = np.arange(1, count)
    return (_spearman(away, distances[0, 1:]) + _spearman(away, distances[-1, -2::-1])) / 2.0


def _spearman(order: npt.NDArray[np.integer[Any]], distances: npt.NDArray[np.floating[Any]]) -> float:
    return float(stats.spearmanr(order, distances).statistic) if np.ptp(distances) > _ALIKE else 0.0


def agreements(vectors: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
    """``order_agreement`` of a sweep's ``vectors`` [n, d] by each metric."""
    wide = np.asarray(vectors, dtype=np.float64)
    return {
        name: order_agreement(distance.squareform(distance.pdist(wide, kind)))
        for name, kind in METRICS.items()
    }


def measure(
    files: Sequence[Path], embed: EmbedAll, progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """By encoder and metric: ``spearman``, and the same of every engine and each of its attributes.

    ``files``: of ``notes.sweeps.render_sweeps``.
    """
    if not files:
        raise DataError("there is no sweep to ask: install vita or the Debian package amsynth")
    found: dict[str, dict[str, dict[tuple[str, str], list[float]]]] = {}
    for done, path in enumerate(files, start=1):
        sweep = load(path)
        for name, vectors in embed(clips(sweep)).items():
            for metric, value in agreements(vectors).items():
                by_attribute = found.setdefault(name, {}).setdefault(metric, {})
                by_attribute.setdefault((sweep.engine, sweep.attribute), []).append(value)
        progress("sweeps", done, len(files))
    return {
        name: {metric: summary(by_attribute) for metric, by_attribute in by_metric.items()}
        for name, by_metric in found.items()
    }


def clips(sweep: Sweep) -> npt.NDArray[np.float32]:
    """The sounds as encoders hear them: [n, 72000]."""
    return np.stack([clip(sound.astype(np.float32) / 32_768.0) for sound in sweep.audio])


def summary(by_attribute: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, Any]:
    """``spearman`` of everything, then by engine, of values by (engine, attribute); and how many sweeps there were."""
    means = {key: float(np.mean(values)) for key, values in by_attribute.items()}
    engines: dict[str, Any] = {}
    for engine in dict.fromkeys(engine for engine, _ in means):
        own = {attribute: mean for (of, attribute), mean in means.items() if of == engine}
        engines[engine] = {"spearman": _mean(own.values()), "attributes": own}
    return {
        "spearman": _mean(means.values()),
        "attributes": len(means),
        "sweeps": sum(len(values) for values in by_attribute.values()),
        "engines": engines,
    }


def headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of one encoder's part of ``measure``: the protocol's ``spearman``, by L1, and what it is the mean of."""
    return {name: figures["l1"][name] for name in ("spearman", "attributes", "sweeps")}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else math.nan
