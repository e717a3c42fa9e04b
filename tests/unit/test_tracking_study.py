"""A study in MLflow: one parent run, a child for each row."""

from __future__ import annotations

from pathlib import Path

import pytest

from timbrel.tracking import study
from timbrel.tracking.store import open_store


def test_a_study_is_a_parent_run_with_a_child_per_row(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("| a |\n")
    with study.study_run("little", {"settings": {"steps": 3}}, tmp_path) as record:
        record.row(
            "variant a, seed 1", {"variant": "a", "seed": 1}, {"error": 2.0, "gone": None, "near": "organ"}
        )
        record.row("variant b, seed 1", {"variant": "b", "seed": 1}, {"error": 5.0})
        record.artifact(tmp_path / "table.md")
    client, experiment = open_store(tmp_path)
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(runs) == {"study little", "variant a, seed 1", "variant b, seed 1"}
    parent, child = runs["study little"], runs["variant a, seed 1"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert parent.data.params == {"settings.steps": "3"}
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["table.md"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["figure.near"] == "organ"
    assert child.data.params == {"variant": "a", "seed": "1"}
    assert child.data.metrics == {"error": 2.0}


def test_a_study_that_breaks_is_marked_failed_with_its_rows_kept(tmp_path: Path) -> None:
    def broken() -> None:
        with study.study_run("little", {}, tmp_path) as record:
            record.row("a", {}, {"error": 2.0})
            raise ArithmeticError("diverged")

    with pytest.raises(ArithmeticError):
        broken()
    client, experiment = open_store(tmp_path)
    runs = client.search_runs([experiment])
    assert {run.info.run_name: run.info.status for run in runs} == {"study little": "FAILED", "a": "FINISHED"}


def test_without_mlflow_a_study_only_tells(tmp_path: Path, monkeypatch, capsys) -> None:
    def absent(root: Path) -> None:
        raise ImportError("No module named 'mlflow'")

    monkeypatch.setattr(study, "open_store", absent)
    with study.study_run("little", {}, tmp_path) as record:
        record.row("variant a", {"variant": "a"}, {"error": 2.0})
        record.artifact(tmp_path / "nothing.md")
    told = capsys.readouterr().out
    assert "MLflow is not installed" in told
    assert "[little] variant a: error 2" in told
    assert not (tmp_path / "mlflow.db").exists()
