"""The two pictures that the README shows, as small PNG files. Only stages import this."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from PIL import Image

from timbrel.files import atomic_write
from timbrel.notes.families import FAMILIES

# Eight colours that stay apart in every common kind of colour blindness (Okabe and Ito), less the yellow that white
# swallows; every family also has a shape of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
MOST_COLOURS = 128
DPI = 90


def draw_instruments(places: np.ndarray, family: np.ndarray, split: np.ndarray) -> Figure:
    """Every instrument at its place [n, 2]: shape and colour by ``family`` (numbers of FAMILIES), filled when it was
    trained on, open when it was held out.
    """
    figure = Figure(figsize=(8.6, 6.6), layout="constrained")
    axes = figure.subplots()
    axes.add_patch(Circle((0, 0), 1.0, fill=False, color="#999999", linewidth=1))
    legend = []
    for number, name in enumerate(FAMILIES):
        colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number]
        for heldout in (False, True):
            chosen = (family == number) & ((split != "train") == heldout)
            face = "none" if heldout else colour
            axes.scatter(
                places[chosen, 0], places[chosen, 1], s=64 if heldout else 34, marker=shape, facecolors=face,
                edgecolors=colour, linewidths=1.8 if heldout else 0.5, alpha=1.0 if heldout else 0.65,
            )  # fmt: skip
        legend.append(
            Line2D([], [], marker=shape, color=colour, linestyle="none", label=name.replace("_", " "))
        )
    legend += [
        Line2D([], [], marker="o", color="#555555", linestyle="none", label="trained on"),
        Line2D([], [], marker="o", color="#555555", markerfacecolor="none", markeredgewidth=1.8, linestyle="none",
               label="held out"),
    ]  # fmt: skip
    axes.set_aspect("equal")
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.set_title("Timbre map: every instrument at the mean point of its notes", fontsize=11)
    figure.legend(handles=legend, loc="outside right upper", fontsize=10, frameon=False)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write with at most 128 colours, which halves the file; equal figures give equal bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB").quantize(MOST_COLOURS)
    with atomic_write(path) as handle:
        picture.save(handle, format="png", optimize=True)
