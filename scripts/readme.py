"""Bring the generated parts of README.md up to date: `make readme`. With --check, only say whether they are.

A part stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``:
    stages   what each stage of dvc.yaml makes, and how long it took (reports/stages/*.json)
    commands what `make help` says
    pgesam   the main figures of reports/pgesam.json, as in the bundle's model card
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from timbrel.library.model_card import figures_table, further_figures

ROOT = Path(__file__).parents[1]


def stages() -> str:
    """A table of the pipeline: stage, what it makes, minutes."""
    rows = ["| stage | what it makes | time |", "|---|---|---:|"]
    total = 0.0
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        report = ROOT / "reports" / "stages" / f"{name}.json"
        seconds = json.loads(report.read_text())["seconds"] if report.exists() else 0.0
        total += seconds
        rows.append(f"| {name} | {stage['desc'].rstrip('.')} | {duration(seconds)} |")
    return "\n".join([*rows, f"| **all** | | **{duration(total)}** |"])


def commands() -> str:
    """The output of `make help`, as a block."""
    said = subprocess.run(
        ["make", "-s", "--no-print-directory", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return f"```\n{said.stdout.rstrip()}\n```"


def pgesam() -> str:
    """The figures of the map and the generator."""
    path = ROOT / "reports" / "pgesam.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    return f"{figures_table(report)}\n\n{further_figures(report)}"


def duration(seconds: float) -> str:
    """`41 s`, `6 min 10 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def filled(text: str) -> str:
    """The README with every generated part made anew."""
    for name, make in {"stages": stages, "commands": commands, "pgesam": pgesam}.items():
        part = f"<!-- {name} -->\n{make()}\n<!-- end {name} -->"
        text = re.sub(
            rf"<!-- {name} -->.*?<!-- end {name} -->", lambda _, part=part: part, text, flags=re.DOTALL
        )
    return text


def main() -> int:
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = filled(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            print("README.md is behind: run `make readme`", file=sys.stderr)
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
