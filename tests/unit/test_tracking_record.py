"""One stage, one MLflow run: what is in the store afterwards, and what lies in reports/."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from support.tracking import git, migrated_store

from timbrel.files import sha256_of
from timbrel.tracking import stage_run
from timbrel.tracking.record import content_hash, flatten
from timbrel.tracking.report import write_history, write_summary
from timbrel.tracking.store import EXPERIMENT, artifact_root, open_store

mpl.use("Agg")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return migrated_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def checkout(tmp_path: Path, migrated: Path) -> Path:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return tmp_path


def only_run(checkout: Path):  # type: ignore[no-untyped-def]
    client, experiment = open_store(checkout)
    (run,) = client.search_runs([experiment])
    return client, run


def test_a_run_holds_what_the_stage_told(checkout: Path) -> None:
    data = checkout / "data" / "notes"
    data.mkdir(parents=True)
    (data / "notes.csv").write_text("row\n0\n")
    with stage_run("codec", {"seed": 1, "codec": {"steps": 30, "sources": ["notes"]}}, checkout) as record:
        record.dataset("notes", data)
        record.metrics({"loss": 0.5}, step=10)
        record.metrics({"loss": 0.25}, step=20)
        record.metrics({"lsd_db": 7.5})
        record.artifact(data)
        figure = Figure()
        figure.add_subplot().plot([0, 1])
        record.figure("curve", figure)

    client, run = only_run(checkout)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "codec"
    assert run.data.params == {"seed": "1", "codec.steps": "30", "codec.sources": "['notes']"}
    assert run.data.metrics == {"loss": 0.25, "lsd_db": 7.5}
    curve = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]
    assert curve == [(10, 0.5), (20, 0.25)]
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("notes", content_hash(data)[:32])
    assert json.loads(entry.dataset.source) == {"uri": "data/notes"}
    assert run.info.artifact_uri.startswith(artifact_root(checkout))
    assert [item.path for item in client.list_artifacts(run.info.run_id, "notes")] == ["notes/notes.csv"]
    assert [item.path for item in client.list_artifacts(run.info.run_id, "plots")] == ["plots/curve.png"]

    report = json.loads((checkout / "reports/stages/codec.json").read_text())
    assert report["metrics"] == {"loss": 0.25, "lsd_db": 7.5}
    assert report["device"] == "cpu"
    assert (checkout / "reports/history/codec.csv").read_text() == "step,loss\n10,0.5\n20,0.25\n"


def test_an_alarm_is_a_metric_and_a_line_of_warning(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage_run("vae", {}, checkout) as record:
        record.metrics({"loss": 0.5, "validation.alarm.collapsed": 0.0}, step=10)
        record.metrics(
            {"loss": 0.4, "validation.alarm.collapsed": 1.0}, step=20
        )  # told though the curve is not
        record.metrics({"alarm.overfits": 1.0})
    told = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert told == [
        "[vae] WARNING: validation.alarm.collapsed at step 20",
        "[vae] WARNING: alarm.overfits",
    ]
    client, run = only_run(checkout)
    points = client.get_metric_history(run.info.run_id, "validation.alarm.collapsed")
    assert [(point.step, point.value) for point in points] == [(10, 0.0), (20, 1.0)]


def test_without_a_curve_the_report_holds_final_figures_only(checkout: Path) -> None:
    with stage_run("notes", {}, checkout, curve=False) as record:
        record.metrics({"presets_done": 3.0}, step=3)
        record.metrics({"instruments": 96.0})
    assert json.loads((checkout / "reports/stages/notes.json").read_text())["metrics"] == {
        "instruments": 96.0
    }
    assert not (checkout / "reports/history").exists()
    assert only_run(checkout)[1].data.metrics == {"presets_done": 3.0, "instruments": 96.0}


def test_an_exception_marks_the_run_failed_and_leaves_no_report(checkout: Path) -> None:
    def broken() -> None:
        with stage_run("vae", {}, checkout) as record:
            record.metrics({"loss": 1.0}, step=1)
            raise ArithmeticError("diverged")

    with pytest.raises(ArithmeticError, match="diverged"):
        broken()
    _, run = only_run(checkout)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"loss": 1.0}
    assert not (checkout / "reports").exists()


def test_a_run_that_is_told_to_end_is_killed(checkout: Path) -> None:
    def ended() -> None:
        with stage_run("vae", {}, checkout):
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        ended()
    assert only_run(checkout)[1].info.status == "KILLED"


def test_a_run_names_the_revision_the_changes_and_the_lock(checkout: Path) -> None:
    (checkout / "dvc.lock").write_text("schema: '2.0'\n")
    git(checkout, "init", "-q")
    git(checkout, "add", "dvc.lock")
    git(checkout, "commit", "-q", "-m", "one")
    with stage_run("index", {}, checkout):
        pass
    _, run = only_run(checkout)
    assert run.data.tags["mlflow.source.git.commit"] == git(checkout, "rev-parse", "HEAD")
    assert run.data.tags["timbrel.dirty"] == "false"
    assert run.data.tags["timbrel.dvc_lock"] == sha256_of(checkout / "dvc.lock")


def test_a_checkpoint_belongs_to_its_settings_and_data(checkout: Path) -> None:
    data = checkout / "notes.csv"

    def checkpoint(steps: int, content: str) -> Path:
        data.write_text(content)
        with stage_run("vae", {"vae": {"steps": steps}}, checkout) as record:
            record.dataset("notes", data)
            return record.checkpoint

    first = checkpoint(10, "a")
    assert first.parent == checkout / "build" / "checkpoints"
    assert first.name.startswith("vae-")
    assert checkpoint(10, "a") == first
    assert len({first, checkpoint(11, "a"), checkpoint(10, "b")}) == 3


def test_more_than_a_hundred_parameters(checkout: Path) -> None:
    with stage_run("vae", {f"p{i}": i for i in range(120)}, checkout):
        pass
    _, run = only_run(checkout)
    assert len(run.data.params) == 120
    assert run.data.params["p119"] == "119"


def test_the_store_is_made_once(checkout: Path) -> None:
    _, first = open_store(checkout)
    client, second = open_store(checkout)
    assert first == second
    assert client.get_experiment(first).name == EXPERIMENT
    assert client.get_experiment(first).artifact_location == artifact_root(checkout)


def test_flatten_keeps_lists_whole() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "one").write_text("other"),
        lambda folder: (folder / "one").rename(folder / "two"),
        lambda folder: (folder / "deeper" / "three").write_text(""),
    ],
)
def test_content_hash_sees_every_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "deeper").mkdir()
    before = content_hash(tmp_path)
    assert content_hash(tmp_path) == before
    change(tmp_path)
    assert content_hash(tmp_path) != before


def test_reports_hold_no_number_that_json_lacks(tmp_path: Path) -> None:
    write_summary(tmp_path / "s.json", seconds=1.23, device="cpu", metrics={"b": float("nan"), "a": 1 / 3})
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "seconds": 1.2,
        "device": "cpu",
        "metrics": {"a": 0.333333, "b": None},
    }
    write_history(tmp_path / "h.csv", {2: {"b": float("inf")}, 1: {"a": 1.5, "b": 2.0}})
    assert (tmp_path / "h.csv").read_text() == "step,a,b\n1,1.5,2\n2,,\n"
