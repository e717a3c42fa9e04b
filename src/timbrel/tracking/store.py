"""The MLflow store of a checkout: ``mlflow.db`` (sqlite) and ``mlruns/`` (artifacts), both named explicitly.

MLflow migrates a new sqlite file for several seconds and two processes that do so at once break it, so the store is
opened under a file lock; afterwards concurrent stages only write rows.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "timbrel"
BATCH = 100  # MLflow takes at most 100 parameters in one call


def home(root: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The checkout whose store a stage in ``root`` writes to.

    `dvc exp run --temp` and `--queue` run in a temporary copy of the checkout; DVC names the checkout itself.
    """
    if "DVC_EXP_NAME" in environment and "DVC_ROOT" in environment:
        return Path(environment["DVC_ROOT"]).resolve()
    return root.resolve()


def tracking_uri(root: Path) -> str:
    """The sqlite address of the checkout at ``root``."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def artifact_root(root: Path) -> str:
    """The ``file://`` address under which the runs of this checkout keep their artifacts."""
    return (root.resolve() / "mlruns").as_uri()


def open_store(root: Path) -> tuple[MlflowClient, str]:
    """Open (and on first use create) the store of ``home(root)``: a client, and the id of Timbrel's experiment."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with locked(root):
        client = MlflowClient(tracking_uri(home(root)))
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, experiment.experiment_id
        return client, client.create_experiment(EXPERIMENT, artifact_location=artifact_root(home(root)))


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, object]) -> None:
    """Write a run's parameters, however many."""
    from mlflow.entities import Param

    entries = [Param(name, str(value)) for name, value in params.items()]
    for start in range(0, len(entries), BATCH):
        client.log_batch(run_id, params=entries[start : start + BATCH])


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of the store of ``home(root)``; the kernel drops it when the process ends, however it ends."""
    with (home(root) / ".mlflow.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
