"""A study's rows: kept when finished, measured again under other settings, averaged over seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from timbrel.studies import table
from timbrel.studies.plots import bars, curves
from timbrel.studies.table import Line, Row, Study


def study(calls: list[str], *, broken: str = "") -> Study:
    def measured(name: str, seed: int):
        def compute():
            if name == broken:
                raise ArithmeticError("diverged")
            calls.append(f"{name} {seed}")
            return {"error": {"a": 1.0, "b": 4.0}[name] + seed, "missing": math.nan, "word": name.upper()}

        return compute

    rows = [
        Row(labels={"variant": name, "seed": seed}, compute=measured(name, seed))
        for name in ("a", "b")
        for seed in (1, 2)
    ]
    columns = {"error": "error", "missing": "missing", "word": "word"}
    return Study(
        name="little",
        title="A little study",
        about="What it is.",
        columns=columns,
        rows=rows,
        plot=lambda lines: bars(lines, "variant", {"error": ["error"]}),
    )


def test_rows_become_lines_with_mean_and_deviation_and_three_files(tmp_path: Path) -> None:
    seen = []
    lines = table.run(study([]), tmp_path, {"steps": 3}, lambda row, figures: seen.append((row.key, figures)))
    assert [(line.labels, line.runs) for line in lines] == [({"variant": "a"}, 2), ({"variant": "b"}, 2)]
    assert lines[0].mean["error"] == pytest.approx(2.5)
    assert lines[0].spread["error"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(lines[0].mean["missing"])
    assert lines[1].words == {"word": "B"}
    assert seen[0] == ("variant a, seed 1", {"error": 2.0, "missing": None, "word": "A"})
    content = json.loads((tmp_path / "little.json").read_text())
    assert [row["figures"]["error"] for row in content["rows"]] == [2.0, 3.0, 5.0, 6.0]
    assert content["table"][1]["mean"] == {"error": 5.5, "missing": None}
    text = (tmp_path / "little.md").read_text()
    assert "| variant | error | missing | word |" in text
    assert "| a | 2.5 ± 0.7 | – | A |" in text
    assert (tmp_path / "little.png").read_bytes().startswith(b"\x89PNG")


def test_finished_rows_are_kept_and_others_are_not(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(ArithmeticError):
        table.run(study(calls, broken="b"), tmp_path, {"steps": 3})
    assert calls == ["a 1", "a 2"]
    assert not (tmp_path / "little.md").exists()
    table.run(study(calls), tmp_path, {"steps": 3})
    assert calls == ["a 1", "a 2", "b 1", "b 2"]
    table.run(study(calls), tmp_path, {"steps": 3})
    assert len(calls) == 4
    table.run(study(calls), tmp_path, {"steps": 4})
    assert len(calls) == 8


def test_a_torn_study_keeps_what_is_known_of_rows_still_to_come(tmp_path: Path) -> None:
    table.run(study([]), tmp_path, {"steps": 3})
    path = tmp_path / "little.json"
    content = json.loads(path.read_text())
    content["rows"] = content["rows"][2:]
    path.write_text(json.dumps(content))
    calls: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        table.run(study(calls), tmp_path, {"steps": 3}, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    kept = [row["labels"] for row in json.loads(path.read_text())["rows"]]
    assert kept == [{"variant": v, "seed": s} for v, s in (("a", 1), ("b", 1), ("b", 2))]
    assert calls == ["a 1"]


def test_curves_draw_each_kind_and_levels_as_dashes() -> None:
    def line(kind: str, value: float | str, figure: float) -> Line:
        return Line(
            labels={"kind": kind, "value": value}, runs=1, mean={"error": figure}, spread={}, words={}
        )

    lines = [
        line("clean", "–", 0.5),
        line("noise", 10.0, 2.0),
        line("noise", 20.0, 1.0),
        line("room", 0.4, 3.0),
    ]
    figure = curves(lines, "kind", "value", {"Error": "error"}, shaded={"noise": (5.0, 15.0)})
    assert isinstance(figure, Figure)
    noise, room = figure.axes
    assert (noise.get_xlabel(), room.get_xlabel()) == ("noise", "room")
    assert noise.lines[0].get_xydata().tolist() == [[10.0, 2.0], [20.0, 1.0]]
    assert list(noise.lines[1].get_ydata()) == [0.5, 0.5]
    assert len(noise.patches) == 1
    assert not room.patches
