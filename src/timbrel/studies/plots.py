"""The two kinds of plot that studies have: bars by variant, and curves over what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from timbrel.studies.table import Line


def bars(
    table: Sequence[Line], label: str, panels: Mapping[str, Sequence[str]], *, logarithmic: Sequence[str] = ()
) -> Figure:
    """A panel per entry of ``panels`` (title → figures), a group of bars per line, deviations as whiskers."""
    figure = Figure(figsize=(4.2 * len(panels), 1.6 + 0.42 * len(table)), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
        height = 0.8 / len(names)
        for i, name in enumerate(names):
            places = [row + (i - (len(names) - 1) / 2) * height for row in range(len(table))]
            values = [line.mean.get(name, math.nan) for line in table]
            whiskers = [0.0 if math.isnan(s := line.spread.get(name, math.nan)) else s for line in table]
            label_of = name.split(".")[0]
            if title in logarithmic:  # a bar has no length where there is no zero
                axes.errorbar(values, places, xerr=whiskers, fmt="o", label=label_of)
            else:
                axes.barh(places, values, height=height, xerr=whiskers, label=label_of)
        if title in logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(title, fontsize="medium")
    all_axes[0].set_yticks(range(len(table)), [str(line.labels[label]) for line in table], fontsize="small")
    all_axes[0].invert_yaxis()
    figure.legend(
        *all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small"
    )
    return figure


def curves(
    table: Sequence[Line],
    kind: str,
    value: str,
    panels: Mapping[str, str],
    *,
    shaded: Mapping[str, tuple[float, float]],
) -> Figure:
    """A row of panels per value of label ``kind``, a panel per entry of ``panels`` (title → figure), over ``value``.

    ``shaded``: per kind the range that the training covered. Lines whose ``value`` is no number are drawn as a level.
    """
    kinds = list(
        dict.fromkeys(line.labels[kind] for line in table if isinstance(line.labels[value], int | float))
    )
    levels = [line for line in table if not isinstance(line.labels[value], int | float)]
    figure = Figure(figsize=(4.0 * len(panels), 2.8 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), len(panels), squeeze=False)
    for row, name in zip(grid, kinds, strict=True):
        members = [line for line in table if line.labels[kind] == name]
        for axes, (title, wanted) in zip(row, panels.items(), strict=True):
            axes.plot(
                [line.labels[value] for line in members],
                [line.mean.get(wanted, math.nan) for line in members],
                "o-",
            )
            for line in levels:
                axes.axhline(line.mean.get(wanted, math.nan), color="grey", linestyle="--", linewidth=1)
            if name in shaded:
                axes.axvspan(*shaded[str(name)], color="grey", alpha=0.15)
            axes.set_title(title, fontsize="small")
            axes.set_xlabel(str(name), fontsize="small")
    return figure
