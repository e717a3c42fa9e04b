"""A study's rows computed one by one, and its three files: <name>.json, <name>.md, <name>.png.

Rows that differ only in their ``seed`` make one line of the table: mean and standard deviation over the seeds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timbrel.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Label = str | int | float
Figures = dict[str, float | str]
SEED = "seed"
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing to measure. ``labels`` say which (the first columns of the table); no two rows share all of them."""

    labels: Mapping[str, Label]
    compute: Callable[[], Figures]

    @property
    def key(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.labels.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table: ``mean`` and ``spread`` (sample deviation; nan for one run) of each figure."""

    labels: Mapping[str, Label]
    runs: int
    mean: Mapping[str, float]
    spread: Mapping[str, float]
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """``columns``: figure → heading, those that the Markdown table shows; the JSON holds all."""

    name: str
    title: str
    about: str
    columns: Mapping[str, str]
    rows: Sequence[Row]
    plot: Callable[[Sequence[Line]], Figure]


def run(
    study: Study,
    folder: Path,
    identity: Mapping[str, Any],
    finished: Callable[[Row, Figures], None] = lambda row, figures: None,
) -> list[Line]:
    """Compute what is not yet in ``folder/<name>.json``, keep the file up to date after each row, and draw.

    ``identity`` (plain JSON values) are the settings and the hashes of the data: rows that were measured under another
    one are measured again. ``finished(row, figures)`` is called for each row, kept ones included. Returns the table.
    """
    path = folder / f"{study.name}.json"
    known = _finished_rows(path, identity)
    entries: list[dict[str, Any]] = []
    for row in study.rows:
        entry = known.get(row.key)
        if entry is None:
            began = time.monotonic()
            figures = {name: _plain(value) for name, value in row.compute().items()}
            seconds = round(time.monotonic() - began, 1)
            entry = {"labels": dict(row.labels), "seconds": seconds, "figures": figures}
        entries.append(entry)
        # What is known of later rows stays in the file until their turn.
        waiting = [known[later.key] for later in study.rows[len(entries) :] if later.key in known]
        _write(path, study, identity, entries + waiting)
        finished(row, entry["figures"])
    table = lines(entries)
    with atomic_write(folder / f"{study.name}.md") as handle:
        handle.write(markdown(study, table).encode())
    with atomic_write(folder / f"{study.name}.png") as handle:
        study.plot(table).savefig(handle, format="png", dpi=120, metadata={"Software": None})
    return table


def lines(entries: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Rows averaged over their seeds, in order of first appearance. A figure that is None in any run is nan."""
    groups: dict[tuple[tuple[str, Label], ...], list[Mapping[str, Any]]] = {}
    for entry in entries:
        labels = tuple((name, value) for name, value in entry["labels"].items() if name != SEED)
        groups.setdefault(labels, []).append(entry["figures"])
    table = []
    for group, members in groups.items():
        mean, spread, words = {}, {}, {}
        for name in members[0]:
            values = [member.get(name) for member in members]
            if any(isinstance(value, str) for value in values):
                words[name] = "; ".join(dict.fromkeys(str(value) for value in values))
                continue
            numbers = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
            mean[name] = float(numbers.mean())
            spread[name] = float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan
        table.append(Line(labels=dict(group), runs=len(members), mean=mean, spread=spread, words=words))
    return table


def markdown(study: Study, table: Sequence[Line]) -> str:
    """Title, what was measured, and the table with ``mean ± deviation`` where there are several runs."""
    labels = list(table[0].labels)
    heads = [*labels, *study.columns.values()]
    rows = [
        [*(str(line.labels[name]) for name in labels), *(_cell(line, name) for name in study.columns)]
        for line in table
    ]
    out = [
        f"# {study.title}",
        "",
        study.about,
        "",
        _bar(heads),
        _bar(["---"] * len(labels) + ["---:"] * len(study.columns)),
    ]
    return "\n".join([*out, *map(_bar, rows), "", f"![{study.title}]({study.name}.png)", ""])


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(line: Line, name: str) -> str:
    if name in line.words:
        return line.words[name]
    value, spread = line.mean.get(name, math.nan), line.spread.get(name, math.nan)
    if not math.isfinite(value):
        return "–"
    return f"{value:.3g} ± {spread:.1g}" if math.isfinite(spread) else f"{value:.3g}"


def _plain(value: float | str) -> float | str | None:
    if isinstance(value, str):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _finished_rows(path: Path, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("identity") != json.loads(json.dumps(identity)):
        return {}
    return {Row(labels=entry["labels"], compute=dict).key: entry for entry in content["rows"]}


def _write(
    path: Path, study: Study, identity: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> None:
    table = [
        {
            "labels": dict(line.labels),
            "runs": line.runs,
            "mean": {name: _plain(value) for name, value in line.mean.items()},
            "spread": {name: _plain(value) for name, value in line.spread.items()},
            "words": dict(line.words),
        }
        for line in lines(entries)
    ]
    content = {
        "study": study.name,
        "title": study.title,
        "identity": identity,
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
        "table": table,
        "rows": list(entries),
    }
    with atomic_write(path) as handle:
        handle.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
