"""Pictures of a training: the map, the losses, a generated note beside the real one. Only the stages import this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from timbrel.notes.families import FAMILIES
from timbrel.pgesam.dataset import MapNotes

MARKERS = {"train": "o", "validation": "^", "test": "s"}


def draw_map(mu: np.ndarray, notes: MapNotes) -> Figure:
    """Every note at its μ [n, d], by the first two axes: colour by family, marker by split, the unit circle around."""
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab20"](np.linspace(0, 1, len(FAMILIES)))
    for split, marker in MARKERS.items():
        for number, family in enumerate(FAMILIES):
            chosen = (notes.split == split) & (notes.family == number)
            if chosen.any():
                label = family if split == "train" else None
                x, y = mu[chosen, 0], mu[chosen, 1]
                axes.scatter(x, y, s=8, marker=marker, color=colours[number], label=label, alpha=0.7)
    axes.add_patch(Circle((0, 0), 1.0, fill=False, color="grey"))
    axes.set_aspect("equal")
    axes.legend(markerscale=2, fontsize="small")
    axes.set_title("Timbre map (○ train, △ validation, □ test)")
    return figure


def draw_curves(history: Sequence[tuple[int, Mapping[str, float]]], names: Sequence[str]) -> Figure:
    """Metrics over steps, one small panel each; names that were never reported are left out."""
    present = [name for name in names if any(name in values for _, values in history)]
    columns = min(3, len(present))
    rows = -(-len(present) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel, name in zip(panels.flat, present, strict=False):
        points = [(step, values[name]) for step, values in history if name in values]
        panel.plot(*zip(*points, strict=True))
        panel.set_title(name, fontsize="small")
        panel.set_xlabel("step", fontsize="small")
    for panel in panels.flat[len(present) :]:
        panel.set_visible(False)
    return figure


def draw_pairs(truth: np.ndarray, written: np.ndarray, titles: Sequence[str]) -> Figure:
    """Embeddings [n, frames, 128], true above and generated below, on one colour scale."""
    figure = Figure(figsize=(4 * len(truth), 5), layout="constrained")
    panels = figure.subplots(2, len(truth), squeeze=False, sharex=True, sharey=True)
    for column, title in enumerate(titles):
        for row, (kind, notes) in enumerate((("real", truth), ("generated", written))):
            panels[row, column].imshow(
                notes[column].T, aspect="auto", origin="lower", vmin=-3, vmax=3, cmap="RdBu"
            )
            panels[row, column].set_title(f"{kind}: {title}", fontsize="small")
    return figure
