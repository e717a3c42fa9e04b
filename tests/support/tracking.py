"""An MLflow store to begin with, and Git for a checkout of a test."""

from __future__ import annotations

import subprocess
from pathlib import Path


def migrated_store(folder: Path) -> Path:
    """An empty ``mlflow.db`` in ``folder``: MLflow's first migration takes seconds, so the tests copy one."""
    from mlflow.tracking import MlflowClient

    MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


def git(checkout: Path, *arguments: str) -> str:
    """Output of a Git command that must succeed."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return done.stdout.strip()
