"""One stage, one MLflow run.

    with stage_run("codec", parameters, root) as record:
        record.dataset("notes", root / "data/notes")
        record.metrics({"loss": 0.1}, step=50)     # a curve
        record.metrics({"lsd_db": 7.9})            # a final figure

Its data sets are those that dvc.yaml names, those it made included; in a pipeline it is a child of the pipeline's run.

On a clean exit the run is FINISHED and the metrics are also written to ``reports/stages/<stage>.json`` (and, when
there were steps, ``reports/history/<stage>.csv``). On an exception the run is FAILED, on
Ctrl-C or SIGTERM it is KILLED, and no report is written.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timbrel.files import sha256_of
from timbrel.tracking.checkout import Checkout, Stage, stages, tags
from timbrel.tracking.checkout import flatten as flatten
from timbrel.tracking.dvc_process import this_process
from timbrel.tracking.pipeline_run import PARENT, PROCESS, join, tell
from timbrel.tracking.report import History, write_history, write_summary
from timbrel.tracking.store import log_params, open_store

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

PROGRESS_SECONDS = 3.0


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
        self._named: set[Path] = set()
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
        """Name a file or folder that the stage reads, by the hash of its content; once, under the first name."""
        if path not in self._named:
            digest = self._data(name, path, "input")
            self._inputs.append(f"{name} {digest}")

    def _data(self, name: str, path: Path, context: str) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._named.add(path)
        source = json.dumps({"uri": _relative(path, self._root)})
        digest = content_hash(path)
        entry = Dataset(name=name, digest=digest[:32], source_type="local", source=source)
        named = DatasetInput(entry, [InputTag("mlflow.data.context", context)])
        self._client.log_inputs(self.run_id, datasets=[named])
        return digest

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
    stage: str,
    parameters: Mapping[str, object],
    root: Path,
    *,
    curve: bool = True,
    pipeline: Path = Path("dvc.yaml"),
) -> Iterator[Record]:
    """Open the run of ``stage`` in the store of the checkout at ``root``.

    Without ``curve``, values with a step only tell how far the stage is: MLflow keeps them, the report does not.

    ``parameters`` are nested plain values; they are logged under their dotted paths. The run also carries the git
    revision, whether the tree had changes, and the hash of ``dvc.lock``; the data sets are as ``pipeline`` says.
    """
    client, experiment = open_store(root)
    parent = join(client, experiment, root)
    about = {
        "timbrel.stage": stage,
        "mlflow.source.name": f"timbrel.stages {stage}",
        PROCESS: str(this_process()),
    }
    run = client.create_run(experiment, run_name=stage, tags=tags(root) | about | parent)
    record = Record(stage=stage, client=client, run_id=run.info.run_id, root=root, parameters=parameters)
    paths = stages(Checkout(root), pipeline).get(stage, Stage((), ()))
    try:
        log_params(client, record.run_id, flatten(parameters))
        for name, path in _data_sets(root, paths.inputs):
            record.dataset(name, path)
        yield record
        client.set_tag(record.run_id, "timbrel.device", device())
        for name, path in _data_sets(root, paths.outputs):
            record._data(name, path, "output")
        figures = _write_reports(record, root, curve)
        if parent:
            tell(client, parent[PARENT], stage, figures)
    except BaseException as error:
        # Ctrl-C and the end of the process are no failure of the stage.
        client.set_terminated(record.run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    client.set_terminated(record.run_id, "FINISHED")


def _data_sets(root: Path, paths: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Those of the paths that are there and are no reports, by name: ``data/notes`` is ``notes``."""
    chosen = [path for path in paths if not path.startswith("reports/") and (root / path).exists()]
    return [(path.removeprefix("data/"), root / path) for path in chosen]


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


def _write_reports(record: Record, root: Path, curve: bool) -> dict[str, float]:
    """Returns the final figures: without ``curve``, less those that only told how far the stage was."""
    steps = set() if curve else {name for row in record.history.values() for name in row}
    metrics = {name: value for name, value in record.final.items() if name not in steps}
    summary = root / "reports" / "stages" / f"{record.stage}.json"
    write_summary(summary, seconds=record.seconds, device=device(), metrics=metrics)
    if curve and record.history:
        write_history(root / "reports" / "history" / f"{record.stage}.csv", record.history)
    return metrics


def _relative(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name
