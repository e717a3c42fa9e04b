"""One `dvc repro` or `dvc exp run`, one MLflow run; the runs of its stages are its children.

DVC starts the stages one by one and calls nothing of ours in between or at its end. So the first stage of a DVC process
opens the pipeline's run, those after it find it by that process (``dvc_process``), and a watcher that the first stage
leaves behind ends it when the process has ended (``settling``). A command with nothing to do starts no stage and leaves
no run; a stage run by hand has no parent.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from timbrel.params import load
from timbrel.tracking.checkout import Checkout, flatten, tags
from timbrel.tracking.dvc_process import DvcRun, Process, dvc_run
from timbrel.tracking.store import home, locked, log_params, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PARENT = "mlflow.parentRunId"
# The process whose end is the end of a run; what was typed, which the runs of pipelines alone have.
PROCESS = "timbrel.process"
COMMAND = "timbrel.dvc_command"
EXPERIMENT = "timbrel.dvc_experiment"
# Of a stage, as DVC addresses it.
ADDRESS = "timbrel.dvc_stage"


def current(root: Path) -> str | None:
    """The run of the pipeline that this process is a stage of; None outside one (a stage run by hand)."""
    dvc = dvc_run()
    if dvc is None:
        return None
    found = _find(*open_store(root), dvc)
    return None if found is None else found.info.run_id


def join(client: MlflowClient, experiment: str, root: Path) -> dict[str, str]:
    """Open the pipeline's run or find it. Returns the tags by which a stage's run belongs to it; {} outside one."""
    dvc = dvc_run()
    if dvc is None:
        return {}
    with locked(root):
        found = _find(client, experiment, dvc)
        if found is None:
            found = client.create_run(
                experiment, run_name=dvc.experiment or dvc.command, tags=_about(root, dvc)
            )
            _watch(root, dvc.process)
        known = found.data.params
        new = {name: value for name, value in _settings(root, dvc.pipeline).items() if name not in known}
        log_params(client, found.info.run_id, new)
    return {PARENT: found.info.run_id, ADDRESS: dvc.stage}


def tell(client: MlflowClient, parent: str, stage: str, figures: Mapping[str, float]) -> None:
    """Write the final figures of a stage to the pipeline's run, as ``<stage>.<name>``."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entries = [Metric(f"{stage}.{name}", value, now, 0) for name, value in figures.items()]
    client.log_batch(parent, metrics=entries)


def _find(client: MlflowClient, experiment: str, dvc: DvcRun) -> Run | None:
    """The run that an earlier stage of the same DVC process (and the same experiment of it) opened."""
    runs = client.search_runs([experiment], f"tags.`{COMMAND}` != '' and attributes.status = 'RUNNING'")
    for run in runs:
        same = Process.parse(run.data.tags[PROCESS]).is_same(dvc.process)
        if same and run.data.tags.get(EXPERIMENT) == dvc.experiment:
            return run
    return None


def _about(root: Path, dvc: DvcRun) -> dict[str, str]:
    """The tags of a pipeline's run: where it began, what it was told, and what differs from the revision."""
    params = load(root / "params.yaml")
    found = tags(root) | {
        PROCESS: str(dvc.process),
        COMMAND: dvc.command,
        "mlflow.source.name": dvc.command,
        # As in the manifest of the bundle that is made of them.
        "timbrel.params_sha256": hashlib.sha256(params.model_dump_json().encode()).hexdigest(),
    }
    found.pop("timbrel.dvc_lock", None)  # of the run's end
    if profile := _profile(root, dvc.baseline):
        found["timbrel.profile"] = profile
    if dvc.experiment is not None:
        found[EXPERIMENT] = dvc.experiment
    if changes := _changes(root, dvc):
        found["timbrel.changes"] = ", ".join(changes)
    return found


def _settings(root: Path, pipeline: Path) -> dict[str, object]:
    """All of params.yaml, and the settings of a pipeline apart under the names that `dvc exp run -S` takes."""
    found = flatten(load(root / "params.yaml").model_dump(mode="json"))
    return found | _apart(Checkout(root), pipeline)


def _apart(tree: Checkout, pipeline: Path) -> dict[str, object]:
    if pipeline == Path("dvc.yaml"):
        return {}
    path = pipeline.with_name("params.yaml")
    return {f"{path}:{name}": value for name, value in flatten(tree.read_yaml(path)).items()}


def _changes(root: Path, dvc: DvcRun) -> list[str]:
    """``vae.steps=40`` for every setting that differs from the revision that the pipeline began at."""

    def all_of(tree: Checkout) -> dict[str, object]:
        return flatten(tree.read_yaml(Path("params.yaml"))) | _apart(tree, dvc.pipeline)

    before, now = all_of(Checkout(root, dvc.baseline or "HEAD")), all_of(Checkout(root))
    if not before:
        return []
    return [f"{name}={value}" for name, value in now.items() if before.get(name, ...) != value]


def _profile(root: Path, baseline: str | None) -> str | None:
    """The file in params/ whose settings these are, or were at the revision."""
    profiles = {
        path.stem: Checkout(root).read_yaml(path) for path in sorted((root / "params").glob("*.yaml"))
    }
    for tree in (Checkout(root), Checkout(root, baseline or "HEAD")):
        settings = tree.read_yaml(Path("params.yaml"))
        for name, values in profiles.items():
            if values == settings:
                return name
    return None


def _watch(root: Path, process: Process) -> None:
    """Leave behind who ends the run (`python -m timbrel.tracking settle`). Without the stage's output, which DVC waits
    for to close; what it fails to do is done at the next look at the store."""
    command = [sys.executable, "-m", "timbrel.tracking", "settle", "--after", str(process)]
    subprocess.Popen(
        [*command, "--workspace", str(root.resolve())],
        cwd=home(root),
        env={name: value for name, value in os.environ.items() if not name.startswith("DVC_")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
