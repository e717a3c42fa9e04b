"""In how many processes a stage runs, and on what; what a profile needs before it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from timbrel import distributed
from timbrel.errors import ConfigurationError
from timbrel.params import Params, load
from timbrel.stages import readiness, together

ROOT = Path(__file__).parents[2]


def profile(name: str = "smoke", **hardware: Any) -> Params:
    params = load(ROOT / "params" / f"{name}.yaml")
    return params.model_copy(update={"hardware": params.hardware.model_copy(update=hardware)})


def test_only_the_long_trainings_run_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert together.processes_of("vae", profile()) == 1
    assert together.processes_of("vae", profile(processes=2)) == 2
    assert together.processes_of("codec", profile(processes=2)) == 1
    # One of those that torchrun started starts no others.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert together.processes_of("vae", profile(processes=2)) == 1


def test_auto_is_one_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert together.processes_of("vae", profile(processes="auto")) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert together.processes_of("vae", profile(processes="auto")) == 3
    assert together.processes_of("vae", profile(processes="auto", device="cpu")) == 1


def test_a_batch_has_a_part_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigurationError, match=r"hardware\.processes is 5 and a batch has 4 parts"):
        together.processes_of("generator", profile(processes=5))


def test_a_gpu_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.choose("auto") == torch.device("cpu")
    with pytest.raises(ConfigurationError, match="torch sees no GPU"):
        distributed.choose("cuda")
    assert not distributed.lowers_precision("auto", torch.device("cpu"))
    assert distributed.lowers_precision("bf16", torch.device("cpu"))


def test_parts_of_a_batch_make_the_whole() -> None:
    group = distributed.Group(torch.device("cpu"), rank=1, size=3)
    values = torch.arange(8)
    assert values[group.rows()].tolist() == [1, 4, 7]
    assert group.sizes(8) == [3, 3, 2]
    assert group.order(values).tolist() == [0, 3, 6, 1, 4, 7, 2, 5]
    # The first five rows, shared alike: each process's are the first of its own.
    assert group.own(5) == 2
    weights = [distributed.Group(torch.device("cpu"), rank, 3).weight(8) for rank in range(3)]
    assert sum(weights) == pytest.approx(3)


def test_lower_precision_is_of_the_forward_pass_alone() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    given = torch.randn(8, 64)
    exact = layer(given)
    distributed.in_bfloat16(layer, torch.device("cpu"))
    lowered = layer(given)
    assert lowered.dtype == torch.float32
    assert layer.weight.dtype == torch.float32
    assert 1e-4 < float((lowered - exact).detach().abs().max()) < 0.05
    assert torch.equal(layer.eval()(given), exact)


def test_the_nsynth_profile_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    params = load(ROOT / "params/nsynth.yaml")
    with pytest.raises(ConfigurationError) as caught:
        readiness.require_weights(params, tmp_path)
    assert caught.value.message.splitlines() == [
        "3 problem(s), nothing was run",
        "  codec.kind: EnCodec's weights are missing: `timbrel weights fetch encodec-24khz`",
        "  encoder: efficientat-mn04 is missing: `timbrel weights fetch efficientat-mn04` (MIT)",
        "  encoder: clap-music is missing: `timbrel weights fetch clap-music` (CC0-1.0)",
    ]
    (problem,) = readiness.missing_data(params, tmp_path)
    assert (
        "lacks nsynth-train, nsynth-valid, nsynth-test: `timbrel data fetch nsynth --folder data/nsynth`"
        in problem
    )
    amount = readiness.amount_of(params)
    assert amount == readiness.Amount(notes=330 * 25, renders=720 * 7 + 640 * 5)
    estimates = {name: cost.estimate(params, amount) for name, cost in readiness.COSTS.items()}
    # Nobody has measured networks of this size.
    assert estimates["vae"] is None
    assert estimates["generator"] is None
    assert estimates["notes"] == pytest.approx(118.8 * 8_250 / 18_104)


def test_the_default_profile_lacks_nothing() -> None:
    params = load(ROOT / "params.yaml")
    assert readiness.missing_weights(params, ROOT) == []
    assert readiness.missing_data(params, ROOT) == []
    amount = readiness.amount_of(params)
    assert readiness.COSTS["vae"].estimate(params, amount) == pytest.approx(161.2)
