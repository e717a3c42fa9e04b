"""The `dvc repro` or `dvc exp run` that a stage belongs to.

DVC starts every stage as a process of its own and tells it by environment variables where it stands: ``DVC_STAGE`` and
``DVC_ROOT``, and in an experiment ``DVC_EXP_NAME`` and ``DVC_EXP_BASELINE_REV``. What it does not say is which stages
are of one command: that is the DVC process above them, known by its pid and the time it began.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

# Two looks at one process may differ by a correction of the machine's clock; a pid comes back much later.
CLOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Process:
    """A process of some machine, as a run's tag names it: ``host:pid:began``, in seconds since the epoch."""

    host: str
    pid: int
    began: float

    @classmethod
    def of(cls, process: psutil.Process) -> Process:
        return cls(host=platform.node(), pid=process.pid, began=process.create_time())

    @classmethod
    def parse(cls, text: str) -> Process:
        """Raises ValueError for anything but a tag's value."""
        host, pid, began = text.rsplit(":", 2)
        return cls(host=host, pid=int(pid), began=float(began))

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.began:.2f}"

    def is_same(self, other: Process) -> bool:
        near = abs(self.began - other.began) < CLOCK_SECONDS
        return near and (self.host, self.pid) == (other.host, other.pid)

    def is_gone(self) -> bool:
        """Whether it has ended; of another machine's nothing is known, and it counts as running."""
        if self.host != platform.node():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or not self.is_same(Process.of(process))
        except psutil.NoSuchProcess:
            return True

    def wait(self) -> None:
        """Return when it has ended."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if self.is_same(Process.of(process)):
                process.wait()


@dataclass(frozen=True)
class DvcRun:
    """``command`` as it was typed, ``stage`` as DVC addresses it (``vae``, ``pipelines/codec/dvc.yaml:codec_train``),
    ``experiment`` and ``baseline`` (a revision) where it is one of `dvc exp run`."""

    process: Process
    command: str
    stage: str
    experiment: str | None
    baseline: str | None

    @property
    def pipeline(self) -> Path:
        """The stage's dvc.yaml, relative to the checkout."""
        path, separator, _ = self.stage.rpartition(":")
        return Path(path if separator else "dvc.yaml")


def this_process() -> Process:
    """As others will know it."""
    return Process.of(psutil.Process())


def dvc_run(environment: Mapping[str, str] = os.environ) -> DvcRun | None:
    """What this process is a stage of; None where DVC did not start it, or has ended since."""
    stage = environment.get("DVC_STAGE")
    if stage is None:
        return None
    for ancestor in psutil.Process().parents():
        try:
            command = _dvc_command(ancestor.cmdline())
            if command is not None:
                return DvcRun(
                    process=Process.of(ancestor),
                    command=command,
                    stage=stage,
                    experiment=environment.get("DVC_EXP_NAME"),
                    baseline=environment.get("DVC_EXP_BASELINE_REV"),
                )
        except psutil.Error:
            continue
    return None


def _dvc_command(words: list[str]) -> str | None:
    """``[".../python", ".../bin/dvc", "repro"]`` → ``dvc repro``; None for any other command."""
    for place, word in enumerate(words[:3]):  # dvc …, python dvc …, python -m dvc …
        if word.removesuffix("/__main__.py").rpartition("/")[2] == "dvc":
            typed = words[place + 1 :]
            # What the queue's worker starts for each experiment, with a file of its own.
            return "dvc queue" if typed[:2] == ["exp", "exec-run"] else " ".join(["dvc", *typed])
    return None
