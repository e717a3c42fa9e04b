"""One DVC process, one parent run: who joins it, what it says, how it ends. DVC is played by a process that sleeps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow.entities import Run
from support.tracking import git, migrated_store

from timbrel.tracking import pipeline_run, stage_run
from timbrel.tracking.checkout import Checkout, before, stages
from timbrel.tracking.dvc_process import DvcRun, Process
from timbrel.tracking.pipeline_run import COMMAND, PARENT, PROCESS, current
from timbrel.tracking.settling import settle
from timbrel.tracking.store import open_store

ROOT = Path(__file__).parents[2]
PIPELINE = """
stages:
  notes: {cmd: a, deps: [src/a.py], outs: [data/notes, reports/stages/notes.json: {cache: false}]}
  vae: {cmd: b, deps: [data/notes, src/b.py], outs: [data/vae, reports/stages/vae.json: {cache: false}]}
  bundle: {cmd: c, deps: [data/vae, reports/stages/codec.json], outs: [bundle: {cache: false, persist: true}]}
  codec: {cmd: d, outs: [data/codec]}
  pgesam: {cmd: e, deps: [data/notes], outs: [reports/pgesam.json: {cache: false}]}
"""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return migrated_store(tmp_path_factory.mktemp("store"))


class Dvc:
    """A sleeping process in DVC's place, and who was told to wait for its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sleeper = subprocess.Popen(["sleep", "600"])
        self.process = Process.of(psutil.Process(self._sleeper.pid))
        self.watched: list[Process] = []
        self._patch = monkeypatch
        monkeypatch.setattr(pipeline_run, "_watch", lambda root, process: self.watched.append(process))

    def starts(
        self,
        address: str,
        command: str = "dvc repro",
        experiment: str | None = None,
        baseline: str | None = None,
    ) -> None:
        """From here on this process is that stage."""
        run = DvcRun(self.process, command, address, experiment, baseline)
        self._patch.setattr(pipeline_run, "dvc_run", lambda: run)

    def ends(self) -> None:
        self._sleeper.kill()
        self._sleeper.wait()


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dvc]:
    player = Dvc(monkeypatch)
    yield player
    player.ends()


@pytest.fixture
def checkout(tmp_path: Path, migrated: Path) -> Path:
    """A checkout of the smoke profile whose stages `notes` and `vae` have been built."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copy(ROOT / "params/smoke.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "dvc.lock").write_text("first\n")
    (tmp_path / "data/notes").mkdir(parents=True)
    (tmp_path / "data/notes/notes.csv").write_text("row\n0\n")
    (tmp_path / "reports/stages").mkdir(parents=True)
    for stage, value in (("notes", 3.0), ("pgesam", 4.0)):
        report = {"seconds": 1.0, "device": "cpu", "metrics": {"figure": value, "none": None}}
        (tmp_path / f"reports/stages/{stage}.json").write_text(json.dumps(report))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "params", "params.yaml", "dvc.yaml", "dvc.lock", "reports")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def runs_of(checkout: Path) -> dict[str, Run]:
    client, experiment = open_store(checkout)
    return {run.info.run_name: run for run in client.search_runs([experiment])}


def run_stage(checkout: Path, stage: str, figure: float = 1.0, broken: bool = False) -> None:
    with stage_run(stage, {}, checkout) as record:
        record.metrics({"figure": figure})
        if broken:
            raise ArithmeticError("diverged")


def edit(checkout: Path, old: str, new: str) -> None:
    path = checkout / "params.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_stages_of_one_process_are_children_of_one_run(checkout: Path, dvc: Dvc) -> None:
    edit(checkout, "batch_instruments: 4", "batch_instruments: 5")
    dvc.starts("vae")
    run_stage(checkout, "vae", 0.5)
    parent = current(checkout)
    assert (checkout / "data/notes").exists()
    dvc.starts("bundle")
    run_stage(checkout, "bundle", 7.0)
    assert current(checkout) == parent
    assert dvc.watched == [dvc.process], "one watcher, left by the first stage"

    runs = runs_of(checkout)
    assert set(runs) == {"dvc repro", "vae", "bundle"}
    whole = runs["dvc repro"]
    assert whole.info.run_id == parent
    assert whole.info.status == "RUNNING"
    for stage in ("vae", "bundle"):
        assert runs[stage].info.status == "FINISHED"
        assert runs[stage].data.tags[PARENT] == parent
    assert whole.data.metrics == {"vae.figure": 0.5, "bundle.figure": 7.0}
    assert whole.data.params["vae.batch_instruments"] == "5"
    assert whole.data.params["vae.weights.kl"] == "0.0039"
    tags = whole.data.tags
    assert tags["mlflow.source.git.commit"] == git(checkout, "rev-parse", "HEAD")
    assert tags["timbrel.dirty"] == "true"
    assert tags["timbrel.profile"] == "smoke"
    assert tags["timbrel.changes"] == "vae.batch_instruments=5"
    assert len(tags["timbrel.params_sha256"]) == 64
    assert "timbrel.dvc_lock" not in tags, "its own is not written yet"


def test_it_ends_with_the_process_and_says_how_it_left_the_checkout(checkout: Path, dvc: Dvc) -> None:
    dvc.starts("vae")
    run_stage(checkout, "vae", 0.5)
    (checkout / "dvc.lock").write_text("last\n")
    settle(checkout)
    assert runs_of(checkout)["dvc repro"].info.status == "RUNNING", "its process runs"
    dvc.ends()
    settle(checkout, after=dvc.process)
    whole = runs_of(checkout)["dvc repro"]
    assert whole.info.status == "FINISHED"
    assert whole.data.tags["timbrel.dvc_lock"] == hashlib.sha256(b"last\n").hexdigest()
    assert whole.data.metrics == {"vae.figure": 0.5, "notes.figure": 3.0}, (
        "not of stages that vae does not need"
    )
    assert current(checkout) is None


def test_who_looks_later_ends_it_without_what_is_no_longer_known(checkout: Path, dvc: Dvc) -> None:
    dvc.starts("vae")
    run_stage(checkout, "vae")
    dvc.ends()
    settle(checkout)
    runs = runs_of(checkout)
    assert runs["dvc repro"].info.status == "FINISHED"
    assert runs["dvc repro"].info.end_time == runs["vae"].info.end_time
    assert "timbrel.dvc_lock" not in runs["dvc repro"].data.tags


def test_a_stage_that_fails_fails_its_pipeline(checkout: Path, dvc: Dvc) -> None:
    dvc.starts("notes")
    run_stage(checkout, "notes")
    dvc.starts("vae")
    with pytest.raises(ArithmeticError):
        run_stage(checkout, "vae", broken=True)
    dvc.ends()
    settle(checkout, after=dvc.process)
    whole = runs_of(checkout)["dvc repro"]
    assert whole.info.status == "FAILED"
    assert whole.data.metrics == {"notes.figure": 1.0}


def test_a_stage_that_was_killed_kills_its_pipeline(checkout: Path, dvc: Dvc) -> None:
    dvc.starts("vae")
    run_stage(checkout, "vae")
    client, _ = open_store(checkout)
    child = runs_of(checkout)["vae"].info.run_id
    # As a process leaves it that could not say anything any more.
    client.set_tag(child, PROCESS, str(dvc.process))
    client.update_run(child, status="RUNNING")
    dvc.ends()
    settle(checkout, after=dvc.process)
    assert {name: run.info.status for name, run in runs_of(checkout).items()} == {
        "dvc repro": "KILLED",
        "vae": "KILLED",
    }


def test_two_commands_are_two_runs(checkout: Path, dvc: Dvc, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc.starts("vae", "dvc repro vae")
    run_stage(checkout, "vae")
    first = current(checkout)
    other = Dvc(monkeypatch)
    other.starts("vae", "dvc exp run -S vae.steps=2", experiment="fewer")
    run_stage(checkout, "vae")
    second = current(checkout)
    other.ends()
    assert None not in (first, second)
    assert first != second
    assert set(runs_of(checkout)) == {"dvc repro vae", "fewer", "vae"}


def test_a_stage_run_by_hand_has_no_parent(checkout: Path) -> None:
    assert "DVC_STAGE" not in os.environ
    run_stage(checkout, "vae")
    assert current(checkout) is None
    (run,) = runs_of(checkout).values()
    assert PARENT not in run.data.tags
    assert COMMAND not in run.data.tags


def test_an_experiment_in_a_temporary_folder_is_in_the_store_of_the_checkout(
    checkout: Path, dvc: Dvc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / ".dvc/tmp/exps/tmp1"
    subprocess.run(["git", "clone", "-q", str(checkout), str(workspace)], check=True)
    edit(workspace, "sample_scale: 0.1", "sample_scale: 0.2")
    baseline = git(checkout, "rev-parse", "HEAD")
    with monkeypatch.context() as stage:
        stage.setenv("DVC_EXP_NAME", "wide-map")
        stage.setenv("DVC_ROOT", str(checkout))
        dvc.starts("vae", "dvc exp run --temp", experiment="wide-map", baseline=baseline)
        run_stage(workspace, "vae", 0.5)
    # DVC commits what the experiment left, fetches it and removes the folder.
    (workspace / "dvc.lock").write_text("the experiment's\n")
    git(workspace, "commit", "-q", "-a", "-m", "experiment")
    commit = git(workspace, "rev-parse", "HEAD")
    git(checkout, "fetch", "-q", str(workspace), f"HEAD:refs/exps/{baseline[:2]}/{baseline[2:]}/wide-map")
    shutil.rmtree(workspace)
    dvc.ends()
    settle(checkout, after=dvc.process, workspace=workspace)

    whole = runs_of(checkout)["wide-map"]
    assert whole.info.status == "FINISHED"
    assert whole.info.artifact_uri.startswith((checkout / "mlruns").as_uri())
    assert whole.data.tags["timbrel.changes"] == "vae.sample_scale=0.2"
    assert whole.data.tags["timbrel.dvc_experiment"] == "wide-map"
    assert whole.data.tags["timbrel.dvc_experiment_commit"] == commit
    assert whole.data.tags["timbrel.dvc_lock"] == hashlib.sha256(b"the experiment's\n").hexdigest()
    assert whole.data.metrics == {"vae.figure": 0.5, "notes.figure": 3.0}


def test_a_pipeline_apart_adds_its_settings_under_its_path(checkout: Path, dvc: Dvc) -> None:
    folder = checkout / "pipelines/codec"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text("training: {seed: 3}\n")
    (folder / "dvc.lock").write_text("codec's\n")
    dvc.starts("notes", "dvc repro pipelines/codec/dvc.yaml")
    run_stage(checkout, "notes")
    dvc.starts("pipelines/codec/dvc.yaml:codec_train", "dvc repro pipelines/codec/dvc.yaml")
    run_stage(checkout, "codec_train")
    dvc.ends()
    settle(checkout, after=dvc.process)
    whole = runs_of(checkout)["dvc repro pipelines/codec/dvc.yaml"]
    assert whole.data.params["pipelines/codec/params.yaml:training.seed"] == "3"
    assert whole.data.params["vae.steps"] == "40"
    assert whole.data.tags["timbrel.dvc_lock"] == hashlib.sha256(b"first\n").hexdigest()
    assert whole.data.tags["timbrel.dvc_lock.codec"] == hashlib.sha256(b"codec's\n").hexdigest()


def test_data_sets_are_those_of_the_pipelines_file(checkout: Path) -> None:
    with stage_run("vae", {}, checkout) as record:
        named = record.checkpoint
        record.dataset("again", checkout / "data" / "notes")
        assert record.checkpoint == named, "named before the stage began"
        (checkout / "data/vae").mkdir()
        (checkout / "data/vae/vae.json").write_text("{}")
    (run,) = runs_of(checkout).values()
    found = {entry.dataset.name: entry.tags[0].value for entry in run.inputs.dataset_inputs}
    assert found == {"notes": "input", "vae": "output"}


def test_before_a_stage_is_what_it_reads_from_directly_or_not(checkout: Path) -> None:
    known = stages(Checkout(checkout), Path("dvc.yaml"))
    assert before(known, {"bundle"}) == {"vae", "notes", "codec"}
    assert before(known, {"vae", "notes"}) == set()
    assert before(known, {"unknown"}) == set()
