"""The plot of a stage that draws none itself: what it made, read from what it wrote.

Apart from the stages' modules, which DVC watches: another look of a plot computes nothing anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from timbrel.library.tables import read_patches
from timbrel.pgesam.plots import draw_curves

SAMPLED_NOTES = 500
"""Notes of which the embeddings' spread is drawn."""
MEGABYTE = 1e6


def draw(stage: str, root: Path, final: Mapping[str, float]) -> dict[str, Figure]:
    """Plots by name, of what ``stage`` left in the checkout at ``root`` and of its final figures."""
    if stage == "encoder":
        return {"recall": _recall(final)}
    return {name: plot(root) for name, plot in PLOTS.get(stage, {}).items()}


def curves(history: Mapping[int, Mapping[str, float]]) -> dict[str, Figure]:
    """Every figure of a training over its steps."""
    names = sorted({name for row in history.values() for name in row})
    return {"curves": draw_curves([(step, dict(history[step])) for step in sorted(history)], tuple(names))}


def _families(folder: str) -> Callable[[Path], Figure]:
    """How many instruments of each family, by split, as the report in ``folder`` says."""

    def plot(root: Path) -> Figure:
        families = _json(root / folder / "report.json")["families"]
        return _bars(families, "instruments", stacked=True)

    return plot


def _spread(root: Path) -> Figure:
    """Mean and standard deviation of each number of a codec frame."""
    embeddings = np.load(root / "data/embeddings/embeddings.npy", mmap_mode="r", allow_pickle=False)
    rows = np.unique(np.linspace(0, len(embeddings) - 1, SAMPLED_NOTES).astype(int))
    values = embeddings[rows].astype(np.float32).reshape(-1, embeddings.shape[2])
    mean, deviation, number = values.mean(0), values.std(0), np.arange(values.shape[1])
    figure, axes = _axes(xlabel="number of the frame", ylabel="value")
    axes.plot(number, mean, label="mean")
    axes.fill_between(number, mean - deviation, mean + deviation, alpha=0.3, label="standard deviation")
    axes.legend()
    return figure


def _recall(final: Mapping[str, float]) -> Figure:
    """Share of validation notes that find their instrument, of the encoder and of what it is held against."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in final.items():
        whose, _, rank = name.rpartition(".recall")
        if whose:
            rows.setdefault(whose.removeprefix("baselines."), {})[f"top {rank}"] = value
    return _bars(rows, "share of validation notes that find their instrument")


def _sizes(root: Path) -> Figure:
    sizes = {
        path.stem: path.stat().st_size / MEGABYTE for path in sorted((root / "data/models").glob("*.onnx"))
    }
    return _bars({name: {"size": size} for name, size in sizes.items()}, "MB")


def _map(root: Path) -> Figure:
    """Where the library's patches lie."""
    patches = read_patches(root / "data/library/patches.csv")
    figure, axes = _axes(xlabel="x", ylabel="y")
    for family in sorted({patch.family for patch in patches}):
        places = [(patch.x, patch.y) for patch in patches if patch.family == family]
        axes.scatter(*zip(*places, strict=True), s=8, label=family)
    axes.set_aspect("equal")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _scales(root: Path) -> Figure:
    """How near the neighbours of the renders are: many small ones are hubs."""
    figure, axes = _axes(xlabel="scale of a render (1: as near as the median's)", ylabel="renders")
    axes.hist(np.load(root / "data/index/scales.npy", allow_pickle=False).ravel(), bins=40)
    return figure


def _contents(root: Path) -> Figure:
    files = _json(root / "bundle/manifest.json")["files"]
    return _bars({name: {"size": entry["bytes"] / MEGABYTE} for name, entry in sorted(files.items())}, "MB")


def _found(root: Path) -> Figure:
    recall = _json(root / "reports/search.json")["conditions"]["library_keys"]["recall"]
    return _bars(recall, "share of patches that are found")


PLOTS: dict[str, dict[str, Callable[[Path], Figure]]] = {
    "notes": {"families": _families("data/notes")},
    "patches": {"families": _families("data/patches")},
    "embeddings": {"spread": _spread},
    "export": {"sizes": _sizes},
    "library": {"map": _map},
    "index": {"scales": _scales},
    "bundle": {"contents": _contents},
    "evaluate": {"recall": _found},
    "codec_corpus": {"families": _families("data/codec_corpus/wide")},
    "encoder_corpus": {"families": _families("data/encoder_corpus")},
}


def _bars(rows: Mapping[str, Mapping[str, float]], xlabel: str, *, stacked: bool = False) -> Figure:
    """A bar for each value of each row, beside each other or in one."""
    series = sorted({name for row in rows.values() for name in row})
    figure, axes = _axes(xlabel=xlabel, height=1.2 + 0.3 * len(rows))
    places, ends = np.arange(len(rows)), np.zeros(len(rows))
    height = 0.8 if stacked else 0.8 / max(len(series), 1)
    for number, name in enumerate(series):
        values = np.array([row.get(name, 0.0) for row in rows.values()])
        offset = 0.0 if stacked else (number - (len(series) - 1) / 2) * height
        axes.barh(places + offset, values, height, left=ends if stacked else 0, label=name)
        ends += values
    axes.set_yticks(places, list(rows))
    axes.invert_yaxis()
    if len(series) > 1:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _axes(*, xlabel: str, ylabel: str = "", height: float = 4.5) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, height), layout="constrained")
    return figure, figure.add_subplot(xlabel=xlabel, ylabel=ylabel)


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
