"""Which DVC process a stage belongs to, asked in process trees like DVC's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from timbrel.tracking.dvc_process import DvcRun, Process, dvc_run, this_process

ASK = (
    "from timbrel.tracking.dvc_process import dvc_run; run = dvc_run();"
    " print(run and (run.process.pid, run.command, run.stage, run.experiment, run.baseline, str(run.pipeline)))"
)
# Starts each stage as DVC does: in a shell, with the stage's name in the environment.
DVC = f"""
import os, subprocess, sys
print(os.getpid(), flush=True)
for stage in ("vae", "pipelines/codec/dvc.yaml:codec_train"):
    command = f"{{sys.executable}} -c '{ASK}'; true"
    subprocess.run(["/bin/sh", "-c", command], env=os.environ | {{"DVC_STAGE": stage}}, check=True)
"""


@pytest.fixture
def dvc(tmp_path: Path) -> Path:
    """A script that is named as DVC's is."""
    path = tmp_path / "bin" / "dvc"
    path.parent.mkdir()
    path.write_text(DVC)
    return path


def ask(*command: str, **environment: str) -> list[str]:
    whole = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")} | environment
    done = subprocess.run(command, env=whole, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_all_stages_of_a_command_name_its_process(dvc: Path) -> None:
    pid, first, second = ask(sys.executable, str(dvc), "repro", "--force")
    assert first == f"({pid}, 'dvc repro --force', 'vae', None, None, 'dvc.yaml')"
    address = "pipelines/codec/dvc.yaml:codec_train"
    assert second == f"({pid}, 'dvc repro --force', '{address}', None, None, 'pipelines/codec/dvc.yaml')"


def test_an_experiment_is_named_and_the_queues_worker_hides_its_files(dvc: Path) -> None:
    command = [sys.executable, str(dvc), "exp", "exec-run", "--infofile", "/tmp/somewhere"]
    pid, first, _ = ask(*command, DVC_EXP_NAME="soft-map", DVC_EXP_BASELINE_REV="abc")
    assert first == f"({pid}, 'dvc queue', 'vae', 'soft-map', 'abc', 'dvc.yaml')"


def test_a_stage_run_by_hand_belongs_to_no_command() -> None:
    assert ask(sys.executable, "-c", ASK) == ["None"]
    # What a shell that DVC started left in the environment names no process, either.
    assert ask(sys.executable, "-c", ASK, DVC_STAGE="vae") == ["None"]
    assert dvc_run({}) is None


def test_a_process_is_known_by_its_pid_and_its_beginning() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = Process.of(psutil.Process(child.pid))
    assert Process.parse(str(process)).is_same(process)
    assert not process.is_gone()
    later = Process(host=process.host, pid=process.pid, began=process.began + 600)
    assert later.is_gone(), "another process that has the pid now"
    later.wait()
    assert not Process(host="elsewhere", pid=process.pid, began=0.0).is_gone()
    child.kill()
    child.wait()
    assert process.is_gone()
    process.wait()
    assert not this_process().is_gone()


def test_a_pipeline_of_its_own_is_its_file() -> None:
    run = DvcRun(this_process(), "dvc repro", "pipelines/encoder/dvc.yaml:encoder_train", None, None)
    assert run.pipeline == Path("pipelines/encoder/dvc.yaml")
