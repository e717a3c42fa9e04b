"""One stage, one MLflow run.

    with stage_run("codec", parameters, root) as record:
        record.dataset("notes", root / "data/notes")
        record.metrics({"loss": 0.1}, step=50)     # a curve
        record.metrics({"lsd_db": 7.9})            # a final figure

On a clean exit the run is FINISHED and the metrics are also written to ``reports/stages/<stage>.json`` (and, when
there were steps, ``reports/history/<stage>.csv``). On an exception the run is FAILED, on
Ctrl-C or SIGTERM it is KILLED, and no report is written.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timbrel.files import sha256_of
from timbrel.tracking.report import History, write_history, write_summary
from timbrel.tracking.store import open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

PROGRESS_SECONDS = 3.0
BATCH = 100  # MLflow takes at most 100 parameters in one call


class Record:
    """What a stage tells about itself while it runs. Not thread-safe: a stage reports from one thread."""

    def __init__(
        self, *, stage: str, client: MlflowClient, run_id: str, root: Path, parameters: Mapping[str, object]
    ) -> None:
        self.stage = stage
        self.run_id = run_id
        self.final: dict[str, float] = {}
        self.history: History = {}
        self._client = client
        self._root = root
        self._inputs = [json.dumps(parameters, sort_keys=True, default=str)]
        self._started = time.monotonic()
        self._told_at = float("-inf")

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    @property
    def checkpoint(self) -> Path:
        """Where a training keeps its state: one file per settings and data sets named so far.

        A training that was cut off goes on when it is run again, but never from a state that other settings or
        other data left.
        """
        key = hashlib.sha256("\n".join(self._inputs).encode()).hexdigest()[:12]
        return self._root / "build" / "checkpoints" / f"{self.stage}-{key}.pt"

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, as points of a curve when ``step`` is given. The last value of each goes into the report.

        A metric ``….alarm.<sign>`` (or ``alarm.<sign>``) that is not 0 is also told in a line of warning.
        """
        from mlflow.entities import Metric

        plain = {name: float(value) for name, value in values.items()}
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step or 0) for name, value in plain.items()]
        self._client.log_batch(self.run_id, metrics=points)
        self.final.update(plain)
        if step is not None:
            self.history.setdefault(step, {}).update(plain)
        self._tell(plain, step)
        for name, value in plain.items():
            if value and "alarm" in name.split("."):
                where = "" if step is None else f" at step {step}"
                print(f"[{self.stage}] WARNING: {name}{where}", flush=True)

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a matplotlib figure as ``plots/<name>.png``."""
        self._client.log_figure(self.run_id, figure, f"plots/{name}.png")

    def dataset(self, name: str, path: Path) -> None:
        """Name a file or folder that the stage reads, by the hash of its content."""
        from mlflow.entities import Dataset, DatasetInput

        source = json.dumps({"uri": _relative(path, self._root)})
        digest = content_hash(path)
        self._inputs.append(f"{name} {digest}")
        entry = Dataset(name=name, digest=digest[:32], source_type="local", source=source)
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(entry, [])])

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file or folder with the run."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), path.name)
        else:
            self._client.log_artifact(self.run_id, str(path))

    def _tell(self, values: Mapping[str, float], step: int | None) -> None:
        """A progress line: every final figure, and a curve's points at most every few seconds."""
        if step is not None and time.monotonic() - self._told_at < PROGRESS_SECONDS:
            return
        self._told_at = time.monotonic()
        where = "" if step is None else f" step {step}:"
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"[{self.stage}]{where} {shown}  ({self.seconds:.0f} s)", flush=True)


@contextmanager
def stage_run(
    stage: str, parameters: Mapping[str, object], root: Path, *, curve: bool = True
) -> Iterator[Record]:
    """Open the run of ``stage`` in the store of the checkout at ``root``.

    Without ``curve``, values with a step only tell how far the stage is: MLflow keeps them, the report does not.

    ``parameters`` are nested plain values; they are logged under their dotted paths. The run also carries the git
    revision, whether the tree had changes, and the hash of ``dvc.lock``.
    """
    from mlflow.entities import Param

    client, experiment = open_store(root)
    of_stage = {"timbrel.stage": stage, "mlflow.source.name": f"timbrel.stages {stage}"}
    run = client.create_run(experiment, run_name=stage, tags=tags(root) | of_stage)
    record = Record(stage=stage, client=client, run_id=run.info.run_id, root=root, parameters=parameters)
    try:
        params = [Param(name, str(value)) for name, value in flatten(parameters).items()]
        for start in range(0, len(params), BATCH):
            client.log_batch(record.run_id, params=params[start : start + BATCH])
        yield record
        client.set_tag(record.run_id, "timbrel.device", device())
        _write_reports(record, root, curve)
    except BaseException as error:
        # Ctrl-C and the end of the process are no failure of the stage.
        client.set_terminated(record.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    client.set_terminated(record.run_id, "FINISHED")


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``; lists stay whole."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def content_hash(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's relative names and the hashes of their contents."""
    if path.is_file():
        return sha256_of(path)
    whole = hashlib.sha256()
    for file in sorted(inner for inner in path.rglob("*") if inner.is_file()):
        whole.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
    return whole.hexdigest()


def device() -> str:
    """What this process computes on: the GPU's name when torch is in use and sees one, else ``cpu``."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"


def _write_reports(record: Record, root: Path, curve: bool) -> None:
    steps = set() if curve else {name for row in record.history.values() for name in row}
    metrics = {name: value for name, value in record.final.items() if name not in steps}
    summary = root / "reports" / "stages" / f"{record.stage}.json"
    write_summary(summary, seconds=record.seconds, device=device(), metrics=metrics)
    if curve and record.history:
        write_history(root / "reports" / "history" / f"{record.stage}.csv", record.history)


def tags(root: Path) -> dict[str, str]:
    """What a run says of the checkout at ``root``: git revision, whether the tree had changes, hash of ``dvc.lock``."""
    found = {"mlflow.source.type": "LOCAL"}
    revision = _git(root, "rev-parse", "HEAD")
    if revision:
        found["mlflow.source.git.commit"] = revision
        found["timbrel.dirty"] = str(
            bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
        ).lower()
    lock = root / "dvc.lock"
    if lock.exists():
        found["timbrel.dvc_lock"] = sha256_of(lock)
    return found


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command; empty where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name
