"""One study, one MLflow run, with a child for each of its rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from timbrel.tracking.checkout import flatten, tags
from timbrel.tracking.dvc_process import this_process
from timbrel.tracking.pipeline_run import PARENT, PROCESS
from timbrel.tracking.store import log_params, open_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class StudyRecord:
    """What a study tells while it runs; without MLflow (``client`` None) it only prints."""

    def __init__(self, study: str, client: MlflowClient | None, experiment: str, run_id: str) -> None:
        self.study = study
        self.run_id = run_id
        self._client = client
        self._experiment = experiment
        self._started = time.monotonic()

    def row(self, name: str, labels: Mapping[str, object], figures: Mapping[str, float | str | None]) -> None:
        """A finished row: a child run with its labels as parameters and its figures as metrics (words as tags)."""
        numbers = {
            key: float(value)
            for key, value in figures.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        shown = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        print(f"[{self.study}] {name}: {shown}  ({time.monotonic() - self._started:.0f} s)", flush=True)
        if self._client is None:
            return
        from mlflow.entities import Metric, Param

        words = {f"figure.{key}": value for key, value in figures.items() if isinstance(value, str)}
        about = {PARENT: self.run_id, "timbrel.study": self.study, **words}
        child = self._client.create_run(self._experiment, run_name=name, tags=about)
        now = int(time.time() * 1000)
        self._client.log_batch(
            child.info.run_id,
            metrics=[Metric(key, value, now, 0) for key, value in numbers.items()],
            params=[Param(key, str(value)) for key, value in labels.items()],
        )
        self._client.set_terminated(child.info.run_id, "FINISHED")

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file with the study's run."""
        if self._client is not None:
            self._client.log_artifact(self.run_id, str(path))


@contextmanager
def study_run(study: str, parameters: Mapping[str, object], root: Path) -> Iterator[StudyRecord]:
    """Open the run of ``study`` in the store of the checkout at ``root``; where MLflow is not installed, none.

    It ends FINISHED, on an exception FAILED, on Ctrl-C or SIGTERM KILLED.
    """
    try:
        client, experiment = open_store(root)
    except ImportError:
        print(f"[{study}] MLflow is not installed: the files are written, no run is recorded", flush=True)
        yield StudyRecord(study, None, "", "")
        return
    source = {"timbrel.study": study, "mlflow.source.name": f"timbrel.studies {study}"}
    about = tags(root) | source | {PROCESS: str(this_process())}
    run = client.create_run(experiment, run_name=f"study {study}", tags=about)
    try:
        log_params(client, run.info.run_id, flatten(parameters))
        yield StudyRecord(study, client, experiment, run.info.run_id)
    except BaseException as error:
        client.set_terminated(run.info.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    client.set_terminated(run.info.run_id, "FINISHED")
