"""The whole pipeline for real, in miniature, in a checkout of its own; and the lock of the one we have."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from timbrel.audio import Audio
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.files import sha256_of
from timbrel.library.bundle import Bundle
from timbrel.notes.noteset import NoteSet
from timbrel.params import load
from timbrel.stages import STAGES
from timbrel.studies import NAMES
from timbrel.tracking.checkout import flatten
from timbrel.tracking.record import content_hash
from timbrel.tracking.registry import Registry
from timbrel.tracking.store import open_store

ROOT = Path(__file__).parents[2]
UP_TO_DATE = "Data and pipelines are up to date."
SMOKE_SECONDS = 300


@dataclass(frozen=True)
class Checkout:
    """A working copy with its own Git and DVC, whose commands run the copy's code."""

    root: Path

    def environment(self) -> dict[str, str]:
        found = dict(os.environ)
        found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
        found["PYTHONPATH"] = str(self.root / "src")
        return found

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
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
    built = ("bundle/", "reports/", "dvc.lock", "tests/")
    apart = tuple(
        f"reports/{kind}/{name}_" for kind in ("stages", "history") for name in ("codec", "encoder")
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (name.startswith(apart) or not name.startswith(built)) and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    shutil.copy(target / "params/smoke.yaml", target / "params.yaml")
    checkout = Checkout(target)
    checkout.run("git", "init", "-q")
    checkout.run("git", "add", "-A")
    checkout.run("git", "config", "user.name", "t")
    checkout.run("git", "config", "user.email", "t@t")
    checkout.run("git", "commit", "-q", "-m", "smoke")
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


def ended(client: MlflowClient, experiment: str, name: str) -> Run:
    """The pipeline's run of that name, when its watcher has ended it."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
        if run.info.status != "RUNNING":
            return run
        time.sleep(0.2)
    raise AssertionError(f"{name} is still open")


def children(client: MlflowClient, parent: Run) -> dict[str, Run]:
    found = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    return {run.info.run_name: run for run in found}


def metrics_in_git(built: Checkout, revision: str | None = None) -> dict[str, float]:
    """The stages' reports, as their pipeline's run names the figures."""
    figures: dict[str, float] = {}
    for stage in STAGES:
        path = f"reports/stages/{stage}.json"
        text = (
            (built.root / path).read_text()
            if revision is None
            else built.run("git", "show", f"{revision}:{path}").stdout
        )
        figures |= {f"{stage}.{name}": value for name, value in json.loads(text)["metrics"].items()}
    return {name: value for name, value in figures.items() if value is not None}


def agrees(found: dict[str, float], reported: dict[str, float]) -> None:
    """Reports hold six digits, and no value that is not finite."""
    assert set(reported) <= set(found)
    assert {name: found[name] for name in reported} == pytest.approx(reported, rel=1e-5)


def test_a_repro_is_one_run_with_a_child_for_every_stage(built: Checkout) -> None:
    client, experiment = open_store(built.root)
    whole = ended(client, experiment, "dvc repro")
    assert whole.info.status == "FINISHED"
    runs = children(client, whole)
    assert set(runs) == set(STAGES)
    assert len(client.search_runs([experiment])) == 1 + len(STAGES), "the second repro left no run"
    params = load(built.root / "params.yaml").model_dump(mode="json")
    revision = built.run("git", "rev-parse", "HEAD").stdout.strip()
    assert whole.data.params == {name: str(value) for name, value in flatten(params).items()}
    agrees(whole.data.metrics, metrics_in_git(built))
    tags = whole.data.tags
    assert tags["mlflow.source.git.commit"] == revision
    assert (tags["timbrel.dirty"], tags["timbrel.profile"]) == ("false", "smoke")
    assert tags["timbrel.dvc_lock"] == sha256_of(built.root / "dvc.lock")
    manifest = json.loads((built.root / "bundle/manifest.json").read_text())
    assert tags["timbrel.params_sha256"] == manifest["provenance"]["params_sha256"]
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
        assert client.list_artifacts(run.info.run_id, "plots"), f"{stage} has no plot"


def test_every_stage_names_what_it_read_and_what_it_made(built: Checkout) -> None:
    client, experiment = open_store(built.root)
    digests: dict[str, set[str]] = {}
    data: dict[tuple[str, str], set[str]] = {}
    for stage, run in children(client, ended(client, experiment, "dvc repro")).items():
        for entry in run.inputs.dataset_inputs:
            digests.setdefault(entry.dataset.name, set()).add(entry.dataset.digest)
            data.setdefault((stage, entry.tags[0].value), set()).add(entry.dataset.name)
    assert digests["notes"] == {content_hash(built.root / "data/notes")[:32]}
    assert all(len(found) == 1 for found in digests.values()), "what one made is what the next read"
    assert data["vae", "input"] == {"notes", "codec", "embeddings"}
    assert data["vae", "output"] == {"vae"}
    assert data["evaluate", "input"] == {"bundle", "patches"}
    assert all((stage, "input") in data or (stage, "output") in data for stage in STAGES)


@pytest.mark.parametrize(
    ("stage", "loss"), [("codec", "loss"), ("encoder", "stage1_loss"), ("vae", "loss"), ("generator", "loss")]
)
def test_a_training_leaves_its_curve(built: Checkout, stage: str, loss: str) -> None:
    client, experiment = open_store(built.root)
    run = children(client, ended(client, experiment, "dvc repro"))[stage]
    assert len(client.get_metric_history(run.info.run_id, loss)) >= 1


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


def test_what_was_built_and_measured_is_the_candidate(built: Checkout) -> None:
    (version,) = Registry.open(built.root).versions()
    assert version.aliases == ("candidate",)
    assert version.bundle == Bundle.open(version.folder).id == Bundle.open(built.root / "bundle").id
    metrics = json.loads((built.root / "reports/stages/evaluate.json").read_text())["metrics"]
    known = {name: value for name, value in metrics.items() if value is not None}
    assert known
    assert version.figures.items() >= known.items()
    assert version.settings["generator.steps"] == load(built.root / "params.yaml").generator.steps


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


def test_what_dvc_users_expect_of_metrics_and_plots(built: Checkout) -> None:
    shown = json.loads(built.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    found = {f"reports/stages/{stage}.json" for stage in STAGES}
    assert found <= set(shown)
    assert all("error" not in entry for entry in shown.values())
    drawn = json.loads(built.run("dvc", "plots", "show", "--json").stdout)
    assert not drawn.get("errors")
    plots = yaml.safe_load((built.root / "dvc.yaml").read_text())["plots"]
    assert {plot if isinstance(plot, str) else next(iter(plot)) for plot in plots} <= set(drawn["data"])
    for name in ("vae_loss", "vae_pitch", "generator_error"):
        (plot,) = drawn["data"][name]
        content = json.dumps(plot)
        assert '"equal": ""' in content, "steps without the figure are left out"
        assert '"point"' in content


@pytest.mark.timeout(600)
def test_an_experiment_shows_in_mlflow_and_applies(built: Checkout) -> None:
    """In a temporary folder of DVC's, as every experiment of a queue."""
    built.run("git", "add", "-A")
    built.run("git", "commit", "-q", "-m", "built")
    before = (built.root / "dvc.lock").read_bytes()
    built.run("dvc", "exp", "run", "--temp", "-n", "other-seed", "-S", "evaluation.seed=21")
    assert (built.root / "dvc.lock").read_bytes() == before
    client, experiment = open_store(built.root)
    whole = ended(client, experiment, "other-seed")
    assert whole.info.status == "FINISHED"
    (evaluate,) = children(client, whole).values()
    assert evaluate.info.run_name == "evaluate"
    assert evaluate.data.params["evaluation.seed"] == "21"
    assert client.list_artifacts(evaluate.info.run_id, "plots")
    tags = whole.data.tags
    assert tags["timbrel.changes"] == "evaluation.seed=21"
    assert whole.data.params["evaluation.seed"] == "21"
    commit = tags["timbrel.dvc_experiment_commit"]
    lock = built.run("git", "show", f"{commit}:dvc.lock").stdout
    assert tags["timbrel.dvc_lock"] == hashlib.sha256(lock.encode()).hexdigest()
    # With those of the stages that had nothing to do: as `dvc metrics show` in that experiment.
    agrees(whole.data.metrics, metrics_in_git(built, commit))

    built.run("dvc", "exp", "apply", "other-seed")
    assert load(built.root / "params.yaml").evaluation.seed == 21
    changed = json.loads(built.run("dvc", "params", "diff", "--json").stdout)
    assert changed == {"params.yaml": {"evaluation.seed": {"old": 20, "new": 21, "diff": 1}}}
    paths = json.loads(built.run("dvc", "metrics", "diff", "--json").stdout)
    assert set(paths) == {"reports/stages/evaluate.json"}
    rows = built.run("dvc", "exp", "show", "--csv").stdout
    assert "other-seed" in rows
    built.run("git", "checkout", "-q", ".")
    built.run("dvc", "checkout", "-q")
    assert built.stale() == set()


@pytest.mark.timeout(600)
def test_the_page_shows_the_runs(built: Checkout, tmp_path: Path) -> None:
    """`make mlflow`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = subprocess.run(
        ["make", "-n", "--no-print-directory", "mlflow", f"PORT={port}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    module, *options = made.stdout.splitlines()[-1].split(" -m ")[1].split()
    log = tmp_path / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", module, *options],
            cwd=built.root,
            env=built.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        page = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with suppress(httpx.TransportError):
                if httpx.get(f"{page}/health").status_code == 200:
                    break
            time.sleep(0.2)
        api = f"{page}/api/2.0/mlflow"
        found = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": "timbrel"}).json()
        wanted = {"experiment_ids": [found["experiment"]["experiment_id"]], "max_results": 1000}
        runs = httpx.post(f"{api}/runs/search", json=wanted).json()["runs"]
        named = {run["info"]["run_name"]: run["info"] for run in runs}
        assert {"dvc repro", *STAGES} <= set(named)
        assert named["dvc repro"]["status"] == "FINISHED"
        picture = {"run_uuid": named["vae"]["run_id"], "path": "plots/map.png"}
        assert httpx.get(f"{page}/get-artifact", params=picture).content.startswith(b"\x89PNG")
        assert "<html" in httpx.get(page).text
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


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
