"""End the runs whose process is gone: a pipeline's when its DVC process has ended, a stage's that was cut off."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from timbrel.tracking.checkout import Checkout, before, git, stages
from timbrel.tracking.dvc_process import Process
from timbrel.tracking.pipeline_run import ADDRESS, COMMAND, EXPERIMENT, PARENT, PROCESS, tell
from timbrel.tracking.store import home, locked, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# How long DVC may take to fetch an experiment from its temporary folder once its process has ended.
COLLECTING_SECONDS = 120.0


def settle(root: Path, after: Process | None = None, workspace: Path | None = None) -> None:
    """End every open run whose process is gone. With ``after``, wait for the end of that process first.

    Its runs then also say how they left the checkout, which somebody who looks later cannot know. ``workspace`` is the
    folder that it ran in.
    """
    if after is not None:
        after.wait()
        if workspace is not None and workspace.resolve() != home(root):
            _wait_until_gone(workspace)
    client, experiment = open_store(root)
    with locked(root):
        runs = client.search_runs([experiment], "attributes.status = 'RUNNING'")
        gone = [run for run in runs if PROCESS in run.data.tags and _process(run).is_gone()]
        for run in sorted(gone, key=lambda run: COMMAND in run.data.tags):  # children first: they decide
            if COMMAND in run.data.tags:
                _end(client, run, home(root), after is not None and _process(run).is_same(after))
            else:
                client.set_terminated(run.info.run_id, "KILLED")


def _end(client: MlflowClient, run: Run, root: Path, just_now: bool) -> None:
    """As its stages ended: FAILED where one failed, KILLED where one was cut off or DVC went before it, else FINISHED.

    Then it also gets the figures of the stages before those that ran: with theirs, what `dvc metrics show` says.
    """
    children = client.search_runs([run.info.experiment_id], f"tags.`{PARENT}` = '{run.info.run_id}'")
    found = {child.info.status for child in children}
    status = "FAILED" if "FAILED" in found else "FINISHED" if found == {"FINISHED"} else "KILLED"
    checkout: Checkout | None = Checkout(root) if just_now else None
    experiment = run.data.tags.get(EXPERIMENT)
    if experiment is not None:
        commit = _commit(root, experiment)
        checkout = None if commit is None else Checkout(root, commit)
        if commit is not None:
            client.set_tag(run.info.run_id, "timbrel.dvc_experiment_commit", commit)
    if checkout is not None:
        _leave(client, run, children, checkout, status == "FINISHED")
    ended = [child.info.end_time for child in children if child.info.end_time is not None]
    end = int(time.time() * 1000) if just_now or not ended else max(ended)
    client.set_terminated(run.info.run_id, status, end_time=end)


def _leave(
    client: MlflowClient, run: Run, children: Iterable[Run], checkout: Checkout, finished: bool
) -> None:
    """The hash of each dvc.lock whose stages ran, and the figures of the stages that had nothing to do."""
    ran = {child.data.tags["timbrel.stage"] for child in children}
    addresses = [child.data.tags.get(ADDRESS, "") for child in children]
    pipelines = {Path(address.rpartition(":")[0] or "dvc.yaml") for address in addresses}
    known = stages(checkout, Path("dvc.yaml"))
    for pipeline in pipelines:
        known |= stages(checkout, pipeline)
        lock = checkout.read(pipeline.with_name("dvc.lock"))
        if lock is not None:
            folder = "" if pipeline == Path("dvc.yaml") else f".{pipeline.parent.name}"
            client.set_tag(run.info.run_id, f"timbrel.dvc_lock{folder}", hashlib.sha256(lock).hexdigest())
    if not finished:
        return
    for stage in before(known, ran):
        figures = checkout.read_yaml(Path("reports/stages") / f"{stage}.json").get("metrics", {})
        tell(
            client,
            run.info.run_id,
            stage,
            {name: value for name, value in figures.items() if value is not None},
        )


def _commit(root: Path, experiment: str) -> str | None:
    """The commit that `dvc exp apply` would take; None until DVC has made it."""
    found = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps") or b""
    for line in found.decode().splitlines():
        name, commit = line.split()
        parts = name.split("/")  # refs/exps/<2 of the baseline>/<38 of it>/<name>
        if len(parts) == 5 and parts[4] == experiment:
            return commit
    return None


def _process(run: Run) -> Process:
    return Process.parse(run.data.tags[PROCESS])


def _wait_until_gone(folder: Path) -> None:
    """DVC removes the folder of an experiment when it has fetched what lies in it."""
    deadline = time.monotonic() + COLLECTING_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
