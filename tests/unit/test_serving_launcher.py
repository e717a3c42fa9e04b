"""The launcher's decisions, without starting anything."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from timbrel import settings
from timbrel.errors import BundleError, ConfigurationError, Unavailable
from timbrel.library.champion import Live
from timbrel.serving import launcher
from timbrel.serving.processes import Child


def _run(folder: Path) -> tuple[launcher._Run, list[str]]:
    said: list[str] = []
    return launcher._Run(folder, said.append), said


def test_where_the_wheel_cannot_run_the_models_run_in_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "find_wheel", lambda: (None, "this is no Linux"))
    run, said = _run(tmp_path)
    assert launcher._engine(settings.load({}), run) == {"TIMBREL_ENGINE": "inprocess"}
    assert said == ["Triton cannot run here (this is no Linux): models run in the workers"]
    with pytest.raises(ConfigurationError, match="this is no Linux; set TIMBREL_ENGINE=inprocess"):
        launcher._engine(settings.load({"TIMBREL_ENGINE": "triton"}), run)


def test_a_triton_that_already_runs_is_used(tmp_path: Path) -> None:
    run, said = _run(tmp_path)
    chosen = launcher._engine(settings.load({"TIMBREL_TRITON_URL": "gpu:8001"}), run)
    assert chosen == {"TIMBREL_ENGINE": "triton", "TIMBREL_TRITON_URL": "gpu:8001"}
    assert said == ["models run in the Triton at gpu:8001"]
    assert run.triton is None


def test_inprocess_is_inprocess_even_where_a_triton_is_named(tmp_path: Path) -> None:
    run, _ = _run(tmp_path)
    chosen = settings.load({"TIMBREL_TRITON_URL": "gpu:8001", "TIMBREL_ENGINE": "inprocess"})
    assert launcher._engine(chosen, run) == {"TIMBREL_ENGINE": "inprocess"}


def test_a_signal_and_a_dead_child_end_the_run(tmp_path: Path) -> None:
    run, _ = _run(tmp_path)
    run.check()
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    log = tmp_path / "service.log"
    log.write_text("first\nlast words\n")
    run.service = Child("the HTTP service", process, log)
    with pytest.raises(Unavailable, match=r"the HTTP service ended by itself \(exit status 3\): last words"):
        run.check()
    with launcher._signals(run):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(launcher._Stop):
        run.check()


def test_the_reason_of_a_failed_start_is_our_own_error_if_there_is_one(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    child = Child("the HTTP service", subprocess.Popen([sys.executable, "-c", ""]), log)
    child.process.wait()
    log.write_text(
        "Traceback\n  File x\ntimbrel.errors.BundleError: torn; check it out again\nRuntimeError: later\n"
    )
    assert launcher._reason(child) == "BundleError: torn; check it out again"
    log.write_text("noise " * 10_000 + "\nOSError: no space left on device\n")
    assert launcher._reason(child) == "OSError: no space left on device"
    log.write_text("nothing of use\n")
    assert launcher._reason(child) == "its log tells more"


def test_folders_of_killed_runs_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for name in (f"run-{ended.pid}-a", f"run-{living.pid}-b", "run-x-y", "logs"):
            (tmp_path / name).mkdir()
        launcher._remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {f"run-{living.pid}-b", "run-x-y", "logs"}
    finally:
        living.communicate(b"\n")


def test_a_champion_that_is_not_there_is_said_to_come_back_by_promotion(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "live.json").write_text(Live(champion="ab" * 32).model_dump_json())
    chosen = settings.load({"TIMBREL_REGISTRY": str(tmp_path), "TIMBREL_STATE": str(tmp_path / "state")})
    chosen = chosen.model_copy(update={"http_port": 0, "grpc": False})
    with pytest.raises(BundleError) as caught:
        launcher.serve(chosen, lambda line: None)
    assert "the champion cannot be served (" in caught.value.message
    assert "`timbrel bundle promote abababababab` puts it back" in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "state").exists()
