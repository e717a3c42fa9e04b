"""Draws the Grafana dashboards without Grafana: python monitoring/pictures.py --prometheus http://127.0.0.1:9090 FOLDER

Each panel's own PromQL is asked of a running Prometheus; what it answers is drawn into one PNG per dashboard, with the
dashboard's layout, units, legends and threshold lines. ``--minutes`` says how far back. A panel whose query fails ends
the script; one without data says so in the picture, and on standard error.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.dates as dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

DASHBOARDS = Path(__file__).parent / "grafana" / "dashboards"
# Grafana's grid, in pixels.
COLUMNS, WIDTH, UNIT, GAP, HEADER = 24, 1500, 32, 6, 46
DPI = 100
SCRAPE_SECONDS = 15.0
POINTS = 240
PAGE, CARD, EDGE, INK, FAINT, GRID = "#111217", "#181b1f", "#25272e", "#d8d9e0", "#8e8f99", "#2a2c33"
SERIES = (
    "#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#96d98d", "#ffb357", "#ca95e5",
    "#56a64b", "#e0b400",
)  # fmt: skip
NAMED = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "transparent": INK}


class NoAnswer(Exception):
    """Prometheus does not answer, or refuses a query."""


@dataclass(frozen=True)
class Line:
    """A series: seconds since the epoch, values, and what it is called."""

    name: str
    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Prometheus:
    """A server's HTTP API. ``end`` and ``seconds`` are the time that is looked at."""

    url: str
    end: float
    seconds: float

    @property
    def step(self) -> float:
        return max(SCRAPE_SECONDS, round(self.seconds / POINTS))

    def ask(self, target: Mapping[str, Any]) -> list[Line]:
        """A panel's query: over the time, or at its end if it is an instant one."""
        # As Grafana reckons it: four scrapes at least.
        interval = f"{max(self.step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS):.0f}s"
        query = target["expr"].replace("$__rate_interval", interval)
        if target.get("instant"):
            found = self._get("query", query=query, time=self.end)
            series = [(each["metric"], [each["value"]]) for each in found]
        else:
            found = self._get(
                "query_range", query=query, start=self.end - self.seconds, end=self.end, step=self.step
            )
            series = [(each["metric"], each["values"]) for each in found]
        lines = []
        for labels, points in series:
            times, values = np.array(points, dtype=float).T
            lines.append(Line(_legend(target.get("legendFormat", ""), labels), times, values))
        return sorted(lines, key=lambda line: line.name) if "{{" in target.get("legendFormat", "") else lines

    def _get(self, what: str, **fields: Any) -> list[Any]:
        data = urllib.parse.urlencode(fields).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}", data=data, timeout=30) as answer:
                result: list[Any] = json.load(answer)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            raise NoAnswer(f"{fields['query']}: {json.load(error).get('error', error)}") from None
        except OSError as error:
            raise NoAnswer(f"no Prometheus answers at {self.url} ({error})") from None


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), template)


def draw(dashboard: Mapping[str, Any], prometheus: Prometheus, path: Path) -> list[str]:
    """Draw one dashboard; returns the titles of the panels that had no data."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    height = HEADER + UNIT * max(place["y"] + place["h"] for place in places) + GAP
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    pixels = _Pixels(figure, height)
    pixels.text(GAP + 4, 24, dashboard["title"], size=15, weight="bold")
    began, ended = (
        datetime.fromtimestamp(moment, UTC)
        for moment in (prometheus.end - prometheus.seconds, prometheus.end)
    )
    pixels.text(WIDTH - GAP - 4, 24, f"{began:%H:%M} – {ended:%H:%M} UTC", size=10, color=FAINT, ha="right")
    empty = []
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, top = GAP + place["x"] * (WIDTH - GAP) / COLUMNS, HEADER + place["y"] * UNIT
        wide, high = place["w"] * (WIDTH - GAP) / COLUMNS - GAP, place["h"] * UNIT - GAP
        if panel["type"] == "row":
            pixels.text(left + 2, top + high / 2, f"▾ {panel['title']}", size=10.5, weight="bold")
            continue
        pixels.card(left, top, wide, high)
        pixels.text(left + 10, top + 15, panel["title"], size=9.5, weight="bold")
        lines = [line for target in panel["targets"] for line in prometheus.ask(target)]
        lines = [line for line in lines if np.isfinite(line.values).any()]
        if not lines:
            empty.append(panel["title"])
            note = panel["fieldConfig"]["defaults"].get("noValue", "No data")
            pixels.text(left + wide / 2, top + high / 2 + 6, note, size=11, color=FAINT, ha="center")
        elif panel["type"] == "stat":
            _stat(pixels, panel, lines, left + wide / 2, top + high / 2 + 10, wide)
        elif panel["type"] == "bargauge":
            _bars(pixels.axes(left + 56, top + 30, wide - 70, high - 58), panel, lines)
        else:
            rows = pixels.legend(left + 12, top + high - 10, wide - 24, [line.name for line in lines])
            plot = pixels.axes(left + 62, top + 30, wide - 76, high - 62 - 15 * (rows - 1))
            _timeseries(plot, panel, lines, prometheus)
    # Few colours are enough, and make files that may lie in Git.
    drawn = io.BytesIO()
    figure.savefig(drawn, facecolor=PAGE)
    Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    return empty


class _Pixels:
    """A figure that is spoken to in pixels from the top left."""

    def __init__(self, figure: Figure, height: float) -> None:
        self._figure, self._height = figure, height
        self._renderer = FigureCanvasAgg(figure).get_renderer()

    def text(self, x: float, y: float, text: str, *, size: float, color: str = INK, **more: Any) -> None:
        more = {"va": "center", **more}
        self._figure.text(x / WIDTH, 1 - y / self._height, text, fontsize=size, color=color, **more)

    def card(self, left: float, top: float, wide: float, high: float) -> None:
        box = FancyBboxPatch(
            (left, self._height - top - high), wide, high, boxstyle="round,pad=0,rounding_size=3",
            facecolor=CARD, edgecolor=EDGE, linewidth=0.8, transform=None, zorder=-1,
        )  # fmt: skip
        self._figure.add_artist(box)

    def _wide(self, text: str, size: float) -> float:
        drawn = self._figure.text(0, 0, text, fontsize=size)
        pixels = float(drawn.get_window_extent(self._renderer).width)
        drawn.remove()
        return pixels

    def axes(self, left: float, top: float, wide: float, high: float) -> Axes:
        box = (left / WIDTH, 1 - (top + high) / self._height, wide / WIDTH, high / self._height)
        plot = self._figure.add_axes(box, facecolor=CARD)
        plot.tick_params(colors=FAINT, labelsize=8, length=0, pad=4)
        plot.grid(True, color=GRID, linewidth=0.7)
        plot.set_axisbelow(True)
        for spine in plot.spines.values():
            spine.set_visible(False)
        return plot

    def legend(self, left: float, bottom: float, wide: float, names: Sequence[str]) -> int:
        """Write names with their colours into as many rows as they need; returns how many."""
        rows: list[list[tuple[float, int]]] = [[]]
        x = 0.0
        for number, name in enumerate(names):
            needed = 30 + self._wide(name, 8)
            if x + needed > wide and rows[-1]:
                rows.append([])
                x = 0.0
            rows[-1].append((x, number))
            x += needed
        for index, row in enumerate(rows):
            y = bottom - 15 * (len(rows) - 1 - index)
            for x, number in row:
                mark = Rectangle(
                    (left + x, self._height - y - 1.5), 11, 3, facecolor=_colour(number), transform=None
                )
                self._figure.add_artist(mark)
                self.text(left + x + 16, y, names[number], size=8, color=INK)
        return len(rows)


def _timeseries(plot: Axes, panel: Mapping[str, Any], lines: Sequence[Line], prometheus: Prometheus) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    # Every series on one clock, so that a gap is a gap and a pile is a pile.
    clock = (
        prometheus.end
        - prometheus.seconds
        + prometheus.step * np.arange(prometheus.seconds // prometheus.step + 1)
    )
    values = np.full((len(lines), len(clock)), np.nan)
    for row, line in zip(values, lines, strict=True):
        row[np.rint((line.times - clock[0]) / prometheus.step).astype(int)] = line.values
    moments = dates.date2num([datetime.fromtimestamp(moment, UTC) for moment in clock])
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    if stacked:
        known = np.isfinite(values).any(axis=0)
        tops = np.where(known, np.cumsum(np.nan_to_num(values), axis=0), np.nan)
        floor = np.zeros(len(clock))
        for number, top in enumerate(tops):
            plot.fill_between(moments, floor, top, color=_colour(number), alpha=0.4, linewidth=0)
            edge = np.where(values[number] > 0, top, np.nan)  # of a series that is 0 there is nothing to see
            plot.plot(moments, edge, color=_colour(number), linewidth=1.1)
            floor = np.nan_to_num(top)
        highest = float(np.nanmax(tops))
    else:
        for number, row in enumerate(values):
            plot.plot(moments, row, color=_colour(number), linewidth=1.4)
        if len(values) == 1:
            plot.fill_between(moments, 0, values[0], color=_colour(0), alpha=0.1, linewidth=0)
        highest = float(np.nanmax(values))
    lowest = float(defaults["min"]) if "min" in defaults else float(np.nanmin(values))
    top_edge = float(defaults["max"]) if "max" in defaults else None
    for step in defaults["thresholds"]["steps"]:
        # One far above all that happens would leave nothing of it to see.
        if step["value"] is not None and (top_edge is not None or step["value"] <= max(4 * highest, 1e-9)):
            plot.axhline(step["value"], color=NAMED[step["color"]], linestyle=(0, (5, 4)), linewidth=1.1)
            highest = max(highest, step["value"])
    room = highest - lowest if highest > lowest else 1.0
    plot.set_ylim(lowest - (0 if "min" in defaults else 0.08 * room), top_edge or lowest + 1.08 * room)
    plot.set_xlim(moments[0], moments[-1])
    plot.xaxis.set_major_locator(dates.AutoDateLocator(minticks=4, maxticks=9))
    plot.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    _y_axis(plot, defaults["unit"])


def _stat(
    pixels: _Pixels, panel: Mapping[str, Any], lines: Sequence[Line], x: float, y: float, wide: float
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["options"]["textMode"] == "name":
        names = [line.name for line in lines]
        pixels.text(
            x,
            y,
            "   ".join(names),
            size=min(19, 1.4 * wide / max(map(len, names))),
            color=NAMED["green"],
            ha="center",
        )
        return
    value = float(lines[0].values[-1])
    colour = INK
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = NAMED[step["color"]]
    text = shown(value, defaults["unit"], defaults.get("decimals"))
    pixels.text(x, y, text, size=26, color=colour, ha="center", weight="bold")


def _bars(plot: Axes, panel: Mapping[str, Any], lines: Sequence[Line]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    values = [float(line.values[-1]) for line in lines]
    plot.bar(range(len(values)), values, color=SERIES[0], width=0.7)
    plot.axhline(0, color=FAINT, linewidth=0.8)
    plot.set_xticks(range(len(values)), [line.name for line in lines])
    plot.grid(False, axis="x")
    _y_axis(plot, defaults["unit"])


def _colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _y_axis(plot: Axes, unit: str) -> None:
    """Some five ticks, with as many digits as tell them apart."""
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    ticks = locator.tick_values(*plot.get_ylim())
    apart = float(ticks[1] - ticks[0]) * (100 if unit == "percentunit" else 1)
    digits = None if unit in ("s", "bytes") else max(0, math.ceil(-math.log10(apart) - 1e-9))
    plot.yaxis.set_major_locator(locator)
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit, digits)))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A number as Grafana writes it, for the units that the dashboards have."""
    if unit == "percentunit":
        return f"{100 * value:.{0 if decimals is None else decimals}f} %"
    if unit == "s":
        if abs(value) >= 1 or value == 0:
            return f"{value:.3g} s"
        return f"{1e3 * value:.3g} ms" if abs(value) >= 1e-3 else f"{1e6 * value:.3g} µs"
    if unit == "bytes":
        size = min(4, int(math.log(abs(value), 1024))) if abs(value) >= 1 else 0
        return f"{value / 1024**size:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[size]}"
    number = f"{value:,.{decimals}f}" if decimals is not None else f"{value:,.4g}"
    suffixes = {"short": "", "reqps": " req/s", "ops": " ops/s"}
    return number + (unit.removeprefix("suffix:") if unit.startswith("suffix:") else suffixes[unit])


def main() -> int:
    """0, or 2 after one line that says what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back")
    parser.add_argument(
        "--end", type=float, default=None, help="until when, in seconds since the epoch (now)"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    end = options.end or time.time()
    prometheus = Prometheus(options.prometheus.rstrip("/"), end, 60 * options.minutes)
    try:
        for file in sorted(DASHBOARDS.glob("*.json")):
            empty = draw(json.loads(file.read_text()), prometheus, options.folder / f"{file.stem}.png")
            print(f"{file.stem}.png", *(f"(no data: {title})" for title in empty), file=sys.stderr)
    except NoAnswer as error:
        print(f"timbrel: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
