"""A training stage in several processes: ``python -m timbrel.stages vae`` starts them itself, as torchrun would.

What ``hardware.processes`` asks for is started on this machine; ``torchrun --nproc-per-node 4 -m timbrel.stages vae``
does the same by hand. The process of rank 0 is the stage: it keeps the run in MLflow, reports and writes. When one
ends, all end, and the stage says which.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from timbrel.errors import ConfigurationError, TimbrelError

if TYPE_CHECKING:
    from timbrel.params import Params

# Of the trainings, those that a part of every batch will do for. The codec's and the encoder's are short, and what they
# learn from is in the batch as a whole (batch normalisation, contrast): they run in one process.
STAGES = ("vae", "generator")


class Bystander:
    """The record of a process that does not lead: it tells nothing."""

    checkpoint: Path | None = None

    def dataset(self, name: str, path: Path) -> None:
        pass

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        pass


def stands_by(stage: str) -> bool:
    """Whether this process is one of several and does not lead."""
    if stage not in STAGES:
        return False
    return int(os.environ.get("RANK", "0")) > 0


def processes_of(stage: str, params: Params) -> int:
    """In how many processes this one is to start the stage: 1 where it is one of them already.

    Raises ConfigurationError when a batch has not a part for each.
    """
    if stage not in STAGES or params.hardware.processes == 1:
        return 1
    from timbrel import distributed

    if distributed.started():
        return 1
    count = distributed.processes_on(params.hardware.device, params.hardware.processes)
    smallest = min(params.vae.decoded_notes, params.vae.batch_instruments, params.generator.batch)
    if count > smallest:
        raise ConfigurationError(
            f"hardware.processes is {count} and a batch has {smallest} parts: set fewer, or raise vae.decoded_notes, "
            "vae.batch_instruments and generator.batch"
        )
    return count


def run(stage: str, path: Path, processes: int) -> None:
    """Run the stage in so many processes, with the params file at ``path``.

    Raises TimbrelError, which names the process that ended first, when one fails or is killed.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    configuration = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"timbrel-{stage}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    try:
        elastic_launch(configuration, sys.executable)("-m", "timbrel.stages", stage, "--params", str(path))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = failure.signal_name() if failure.exitcode < 0 else f"exit status {failure.exitcode}"
        raise TimbrelError(
            f"process {rank} of {processes} ended ({how}), and the others with it: what it said stands above; the same "
            "command goes on from the last checkpoint"
        ) from error
