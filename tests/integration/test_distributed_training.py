"""Trainings in two real processes (gloo, this CPU): the same steps as one, whole checkpoints, clear ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests/support/two_processes.py"


def trained(
    folder: Path, processes: int, dropout: float = 0.0, fault: str = ""
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), str(folder), str(dropout)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *([fault] if fault else [])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def whole(folder: Path, processes: int, dropout: float = 0.0) -> tuple[dict[str, Any], dict[str, Any]]:
    done = trained(folder, processes, dropout)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "reports.json").read_text()), torch.load(
        folder / "weights.pt", weights_only=True
    )


@pytest.mark.timeout(600)
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    one, weights_of_one = whole(tmp_path / "one", 1)
    two, weights_of_two = whole(tmp_path / "two", 2)
    for name in ("vae", "generator"):
        assert len(one[name]) == len(two[name]) == 6
        for (step, expected), (same_step, found) in zip(one[name], two[name], strict=True):
            assert step == same_step
            # Losses and held-out figures: those of single notes and those of pairs.
            assert found == pytest.approx(expected, rel=2e-3, abs=2e-5), (name, step)
        for parameter, expected_weight in weights_of_one[name].items():
            # Adam makes steps of a gradient that is 0 but for rounding (a bias before the whitening): single numbers
            # differ by what the learning rate allows, nothing else does.
            apart = (weights_of_two[name][parameter].float() - expected_weight.float()).abs()
            assert float(apart.max()) < 2e-3, f"{name} {parameter}"
            assert float(apart.quantile(0.75)) < 2e-5 or apart.numel() < 8, f"{name} {parameter}"
    assert {"loss.neighbour", "loss.reconstruction", "loss.instrument"} <= set(two["vae"][0][1])
    assert not list((tmp_path / "two").glob("*.pt.part"))


@pytest.mark.timeout(600)
def test_a_killed_process_ends_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    _, expected = whole(tmp_path / "whole", 2, dropout=0.1)
    done = trained(tmp_path / "cut", 2, dropout=0.1, fault="die")
    assert done.returncode != 0
    assert not (tmp_path / "cut/weights.pt").exists()
    left = torch.load(tmp_path / "cut/generator.pt", weights_only=True)
    assert left["next_step"] >= 2
    reports, found = whole(tmp_path / "cut", 2, dropout=0.1)
    # The map was trained again, the generator from where it was cut off: both as if nothing had been.
    assert next(step for step, _ in reports["generator"]) == left["next_step"] + 1
    for name in ("vae", "generator"):
        for parameter, weight in expected[name].items():
            assert torch.equal(found[name][parameter], weight), f"{name} {parameter}"
    assert not (tmp_path / "cut/generator.pt").exists()
