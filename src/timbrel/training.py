"""The loop that every training shares: progress, and resuming after an interruption.

A training is a function ``step(i)``: it draws its batch from a generator seeded by the step (``step_generator``),
updates the modules, and returns its metrics. Because a step depends only on its number and on the state of the
modules, a run that was cut off and resumed gives the same weights as one that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Report = Callable[[int, dict[str, float]], None]


class Stateful(Protocol):
    """A module, an optimizer or a learning-rate schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed torch's global generators: weight initialisation and dropout."""
    torch.manual_seed(seed)


def step_generator(seed: int, step: int) -> np.random.Generator:
    """The random generator of one step: the same on every run, whatever ran before."""
    return np.random.default_rng((seed, step))


def train(
    step: Callable[[int], dict[str, float]],
    *,
    steps: int,
    state: Mapping[str, Stateful],
    report: Report,
    report_every: int = 50,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Run ``step(0) … step(steps - 1)``; report the mean of each metric every ``report_every`` steps.

    With ``checkpoint`` the state is saved there about every ``checkpoint_seconds``, taken up again when the file
    exists, and removed at the end.
    """
    first = _resume(checkpoint, state) if checkpoint and checkpoint.exists() else 0
    sums: dict[str, float] = {}
    counted = 0
    saved_at = time.monotonic()
    for i in range(first, steps):
        for name, value in step(i).items():
            sums[name] = sums.get(name, 0.0) + value
        counted += 1
        if (i + 1) % report_every == 0 or i + 1 == steps:
            report(i + 1, {name: total / counted for name, total in sums.items()})
            sums, counted = {}, 0
        if checkpoint and time.monotonic() - saved_at > checkpoint_seconds and i + 1 < steps:
            _save(checkpoint, state, i + 1)
            saved_at = time.monotonic()
    if checkpoint:
        checkpoint.unlink(missing_ok=True)


def _save(path: Path, state: Mapping[str, Stateful], next_step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    content = {name: holder.state_dict() for name, holder in state.items()}
    torch.save({"next_step": next_step, "rng": torch.get_rng_state(), "state": content}, part)
    os.replace(part, path)


def _resume(path: Path, state: Mapping[str, Stateful]) -> int:
    saved = torch.load(path, weights_only=True, map_location="cpu")
    for name, holder in state.items():
        holder.load_state_dict(saved["state"][name])
    torch.set_rng_state(saved["rng"])
    return int(saved["next_step"])
