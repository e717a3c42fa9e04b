"""The MLflow store of a checkout: ``mlflow.db`` (sqlite) and ``mlruns/`` (artifacts), both named explicitly.

MLflow migrates a new sqlite file for several seconds and two processes that do so at once break it, so the store is
opened under a file lock; afterwards concurrent stages only write rows.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "timbrel"


def tracking_uri(root: Path) -> str:
    """The sqlite address of the checkout at ``root``."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def artifact_root(root: Path) -> str:
    """The ``file://`` address under which the runs of this checkout keep their artifacts."""
    return (root.resolve() / "mlruns").as_uri()


def open_store(root: Path) -> tuple[MlflowClient, str]:
    """Open (and on first use create) the store. Returns a client and the id of Timbrel's experiment."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with _locked(root / ".mlflow.lock"):
        client = MlflowClient(tracking_uri(root))
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return client, experiment.experiment_id
        return client, client.create_experiment(EXPERIMENT, artifact_location=artifact_root(root))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the kernel drops it when the process ends, however it ends."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
