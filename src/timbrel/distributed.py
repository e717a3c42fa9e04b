"""One training in several processes, one for each GPU (or, to test it, on one CPU), as torchrun starts them.

Every process draws the same whole batch and takes every n-th note of it. What a loss says of single notes is averaged
with the gradients (DistributedDataParallel); what it says of pairs of notes, and statistics over a batch, see all of
them (``Group.gather``). So n processes take the steps that one would take with the whole batch, but for rounding and
for dropout and noise, which each draws for itself.

The process of rank 0 leads: it alone reports, measures and writes. A process that is alone does exactly what it would
do without this module.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timbrel.errors import ConfigurationError
from timbrel.training import Report

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16"]
# While the leader measures, the others wait.
_PATIENCE = timedelta(hours=2)
_CHECKPOINT_SECONDS = 60.0
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Group:
    """This process among ``size``: its ``rank``, and the ``device`` that is its own."""

    device: torch.device
    rank: int = 0
    size: int = 1
    gathering: Any = None  # communication of its own, beside that of the gradients

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def rows(self) -> slice:
        """The part of a batch that is this process's: every n-th row. The first few of a batch are shared alike."""
        return slice(None) if self.alone else slice(self.rank, None, self.size)

    def sizes(self, count: int) -> list[int]:
        """How many of ``count`` rows each process has."""
        return [len(range(rank, count, self.size)) for rank in range(self.size)]

    def own(self, count: int) -> int:
        """How many of ``count`` rows are this process's."""
        return self.sizes(count)[self.rank]

    def weight(self, count: int) -> float:
        """What a mean over this process's part of ``count`` rows is worth, so that the mean over processes is that over
        all rows."""
        return self.own(count) * self.size / count

    def order(self, values: Tensor) -> Tensor:
        """Rows of a whole batch in the order in which ``gather`` brings them."""
        return values if self.alone else torch.cat([values[rank :: self.size] for rank in range(self.size)])

    def gather(self, values: Tensor, count: int) -> Tensor:
        """Every process's part of ``count`` rows, one process's after the other's; gradients find their way back."""
        if self.alone:
            return values
        gathered: Tensor = _Gather.apply(values, self.rank, self.sizes(count), self.gathering)
        return gathered

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of ``values``, for reports: no gradient."""
        if not self.alone:
            dist.all_reduce(values, group=self.gathering)
            values /= self.size
        return values

    def same(self, value: Value) -> Value:
        """The leader's value, in every process."""
        if self.alone:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0, group=self.gathering)
        return told[0]

    def parallel(self, module: nn.Module) -> nn.Module:
        """``module``, whose gradients become the mean over all processes as they are computed."""
        if self.alone:
            return module
        # Which parameters a step uses differs from step to step (a hidden past).
        return DistributedDataParallel(module, forward_sync_buffers=False, find_unused_parameters=True)

    def reseed(self, seed: int, step: int) -> None:
        """Dropout and noise of this step and process, whatever ran before: so a resumed run goes on as it would have.

        On one CPU that is what a checkpoint's state of the generator does, and nothing is done here.
        """
        if not self.alone or self.device.type == "cuda":
            torch.manual_seed(hash((seed, step, self.rank)) & (2**63 - 1))

    def report(self, report: Report) -> Report:
        """``report`` in the leader, nothing in the others."""
        return report if self.leads else lambda step, metrics: None

    @property
    def checkpoint_seconds(self) -> float:
        """How often this process saves the state: the leader does, all read what it left."""
        return _CHECKPOINT_SECONDS if self.leads else math.inf


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rank: int, sizes: list[int], group: Any) -> Tensor:
        ctx.rank, ctx.sizes, ctx.group = rank, sizes, group
        # All parts have one size on their way.
        padded = values.new_zeros((max(sizes), *values.shape[1:]))
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Every process's loss depends on this one's part: the gradient is the sum of what all of them say.
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient, group=ctx.group)
        start = sum(ctx.sizes[: ctx.rank])
        return gradient[start : start + ctx.sizes[ctx.rank]], None, None, None


class WholeBatch:
    """Lets ``module``, in training, see the batches of all processes: its statistics are those of the whole batch.

    ``count``: rows of the whole batch, to be set before each step. The module itself stays as it is.
    """

    def __init__(self, group: Group, module: nn.Module) -> None:
        self.count = 0
        self._group = group
        if not group.alone:
            module.register_forward_pre_hook(self._gathered)
            module.register_forward_hook(self._own)

    def _gathered(self, module: nn.Module, values: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (self._group.gather(values[0], self.count),) if module.training else None

    def _own(self, module: nn.Module, values: Any, found: Tensor) -> Tensor | None:
        sizes = self._group.sizes(self.count)
        start = sum(sizes[: self._group.rank])
        return found[start : start + sizes[self._group.rank]] if module.training else None


def in_bfloat16(module: nn.Module, device: torch.device) -> None:
    """Compute ``module`` in bfloat16 where autocast does that; weights and what comes out stay float32."""
    forward: Callable[..., Tensor] = module.forward

    def lower(*values: Any, **options: Any) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=module.training):
            return forward(*values, **options).float()

    module.forward = lower


def started() -> bool:
    """Whether this process is one of several that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Whether this process is alone, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def processes_on(device: Device, wanted: int | Literal["auto"]) -> int:
    """How many processes ``wanted`` means here: "auto" is one for each GPU. Raises ConfigurationError as ``choose``."""
    if wanted != "auto":
        return wanted
    return max(1, torch.cuda.device_count()) if choose(device).type == "cuda" else 1


def choose(device: Device) -> torch.device:
    """The device of a process that is alone. Raises ConfigurationError for a GPU where there is none."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigurationError(
            "hardware.device is cuda and torch sees no GPU: set it to auto, or mend the driver"
        )
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def lowers_precision(precision: Precision, device: torch.device) -> bool:
    """Whether trainings compute in bfloat16: "auto" does where a GPU knows it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


@contextmanager
def join(device: Device) -> Iterator[Group]:
    """The group that torchrun started this process in, or the process alone."""
    mine = choose(device)
    if not started():
        yield Group(mine)
        return
    if mine.type == "cuda":
        mine = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if mine.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Group(mine, dist.get_rank(), dist.get_world_size(), dist.new_group(timeout=_PATIENCE))
    finally:
        dist.destroy_process_group()
