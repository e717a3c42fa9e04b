"""The whole pipeline for real, in miniature, in a checkout of its own; and the lock of the one we have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from timbrel.audio import Audio
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.library.bundle import Bundle
from timbrel.notes.noteset import NoteSet
from timbrel.params import load
from timbrel.stages import STAGES
from timbrel.studies import NAMES
from timbrel.tracking.record import flatten
from timbrel.tracking.store import open_store

ROOT = Path(__file__).parents[2]
UP_TO_DATE = "Data and pipelines are up to date."
SMOKE_SECONDS = 300


@dataclass(frozen=True)
class Checkout:
    """A working copy with its own Git and DVC, whose commands run the copy's code."""

    root: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        environment["PYTHONPATH"] = str(self.root / "src")
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert not check or done.returncode == 0, f"{command}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done

    def repro(self, *options: str) -> str:
        return self.run("dvc", "repro", *options).stdout

    def stale(self) -> set[str]:
        """The stages that `dvc repro` would run."""
        status = json.loads(self.run("dvc", "status", "--json", "dvc.yaml").stdout)
        return set(status)


def copy_of_the_tree(target: Path) -> Checkout:
    """What a commit of the working tree would hold, less what an earlier build left in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    built = ("bundle/", "reports/", "dvc.lock", "tests/", "banks/")
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(built) and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / "banks").mkdir()
    shutil.copy(target / "params/smoke.yaml", target / "params.yaml")
    checkout = Checkout(target)
    checkout.run("git", "init", "-q")
    checkout.run("git", "add", "-A")
    checkout.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "smoke")
    return checkout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The smoke profile, built from nothing."""
    checkout = copy_of_the_tree(tmp_path_factory.mktemp("smoke"))
    began = time.monotonic()
    checkout.repro()
    print(f"smoke profile: {time.monotonic() - began:.0f} s (at most {SMOKE_SECONDS} on two idle cores)")
    return checkout


@pytest.fixture(scope="module")
def engine(built: Checkout) -> Iterator[Engine]:
    bundle = Bundle.open(built.root / "bundle")
    engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    yield engine
    engine.close()


@pytest.mark.timeout(900)
def test_a_second_repro_does_nothing(built: Checkout) -> None:
    assert UP_TO_DATE in built.repro()


def test_git_holds_the_bundle_and_the_reports_and_no_data(built: Checkout) -> None:
    new = built.run("git", "status", "--porcelain", "-uall").stdout.split("\n")
    paths = {line[3:] for line in new if line}
    assert "dvc.lock" in paths
    assert "bundle/manifest.json" in paths
    assert {f"reports/stages/{stage}.json" for stage in STAGES} <= paths
    assert not {
        path for path in paths if path.startswith(("data/", "mlruns/", "mlflow", ".mlflow", "build/"))
    }


def test_every_stage_is_one_finished_run_with_its_parameters_and_metrics(built: Checkout) -> None:
    client, experiment = open_store(built.root)
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert set(runs) == set(STAGES)
    params = load(built.root / "params.yaml").model_dump(mode="json")
    revision = built.run("git", "rev-parse", "HEAD").stdout.strip()
    for stage, sections in STAGES.items():
        run = runs[stage]
        assert run.info.status == "FINISHED"
        expected = flatten({section: params[section] for section in sections})
        assert run.data.params == {name: str(value) for name, value in expected.items()}
        assert run.data.metrics, stage
        assert run.data.tags["mlflow.source.git.commit"] == revision
        report = json.loads((built.root / f"reports/stages/{stage}.json").read_text())
        assert report["metrics"]
        assert set(report["metrics"]) <= set(run.data.metrics)
    for stage, loss in (
        ("codec", "loss"),
        ("encoder", "stage1_loss"),
        ("vae", "loss"),
        ("generator", "loss"),
    ):
        run_id = runs[stage].info.run_id
        assert runs[stage].inputs.dataset_inputs, f"{stage} names no data set"
        assert len(client.get_metric_history(run_id, loss)) >= 1
        assert client.list_artifacts(run_id, "plots"), f"{stage} has no plot"


def test_no_instrument_is_in_two_splits(built: Checkout) -> None:
    splits: dict[str, set[str]] = {}
    for note in NoteSet.open(built.root / "data/notes").notes:
        splits.setdefault(note.instrument, set()).add(note.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) >= {"train", "validation"}


def test_the_map_and_the_generator_are_measured_and_the_bundle_says_so(built: Checkout) -> None:
    report = json.loads((built.root / "reports/pgesam.json").read_text())
    assert report["heldout"]["generated_notes"] == 25 * report["heldout"]["instruments"]
    for figure in ("pitch_accuracy_head", "pitch_accuracy_f0", "v_inst_over_v_pitch"):
        assert figure in report["heldout"]
    assert set(report["heldout"]["embedding_mse"]) == {"transformer", "vae", "nn_map"}
    for name in ("map", "spectrogram_pair"):
        assert 1_000 < (built.root / "reports/figures" / f"{name}.png").stat().st_size < 150_000
    card = (built.root / "bundle/MODEL_CARD.md").read_text()
    assert f"{report['train']['instruments']} instruments" in card


def test_the_bundle_answers_a_search(built: Checkout, engine: Engine) -> None:
    notes = NoteSet.open(built.root / "data/patches")
    note = next(note for note in notes.notes if note.split == "library" and abs(note.f0_midi - 60) < 0.5)
    samples = notes.audio[note.row].astype(np.float32) / 32768
    result = engine.search(Audio(samples, 24_000), k=5)
    assert result.query.midi == pytest.approx(note.f0_midi, abs=0.5)
    assert result.hits[0].patch_id == note.instrument
    assert result.hits[0].stage1_distance == pytest.approx(0, abs=0.02)


def test_the_bundle_answers_a_synthesis(engine: Engine) -> None:
    audio = engine.synthesize(x=0.0, y=0.0, pitch=60, seconds=1.0)
    assert (audio.sample_rate, len(audio.samples)) == (24_000, 24_000)
    assert np.isfinite(audio.samples).all()
    assert 0.01 < np.abs(audio.samples).max() <= 1


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("library", "candidates", 101, {"library", "index", "bundle"}),
        ("patches", "banks", "banks/", {"patches", "evaluate"}),
        ("evaluation", "seed", 21, {"evaluate"}),
        ("pgesam_evaluation", "walks", 2, {"pgesam"}),
        ("generator", "steps", 21, {"generator"}),
    ],
)
def test_an_edited_setting_makes_stale_what_reads_it(
    built: Checkout, section: str, name: str, value: int, expected: set[str]
) -> None:
    path = built.root / "params.yaml"
    before = path.read_text()
    values = yaml.safe_load(before)
    values[section][name] = value
    path.write_text(yaml.safe_dump(values))
    try:
        stale = built.stale()
    finally:
        path.write_text(before)
    assert stale == expected
    assert built.stale() == set()


@pytest.mark.timeout(600)
def test_every_study_is_one_command_with_a_table_a_plot_and_a_run(built: Checkout) -> None:
    built.run(sys.executable, "-m", "timbrel.studies", "all", "--smoke")
    client, experiment = open_store(built.root)
    runs = client.search_runs([experiment], filter_string="tags.`timbrel.study` != ''")
    folder = built.root / "reports" / "studies"
    for study in NAMES:
        content = json.loads((folder / f"{study}.json").read_text())
        assert content["rows"], study
        assert (folder / f"{study}.md").read_text().count("\n| ") == len(content["table"]) + 2
        assert (folder / f"{study}.png").read_bytes().startswith(b"\x89PNG")
        (parent,) = [run for run in runs if run.info.run_name == f"study {study}"]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert len(children) == len(content["rows"])
        assert parent.info.status == "FINISHED"
    again = built.run(sys.executable, "-m", "timbrel.studies", "ablations", "--smoke").stdout
    assert again.count("[ablations] variant ") == len(
        json.loads((folder / "ablations.json").read_text())["rows"]
    )


def test_wrong_settings_stop_the_first_stage_before_any_work(built: Checkout) -> None:
    path = built.root / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("seed: 1\n", "seed: one\n", 1).replace("heads: 2", "heads: 0"))
    done = built.run(sys.executable, "-m", "timbrel.stages", "notes", check=False)
    path.write_text(before)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "notes: params.yaml: 2 problem(s), nothing was run",
        '  seed: must be integer, not "one"',
        "  generator.heads: must be greater than or equal to 1, not 0",
    ]


def test_a_fresh_clone_has_nothing_to_do(tmp_path: Path) -> None:
    """What was committed with this code is what this code and params.yaml build."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    clone = Checkout(tmp_path / "clone")
    said = clone.repro("--allow-missing", "--dry")
    assert "Running stage" not in said, said
