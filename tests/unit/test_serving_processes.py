"""Child processes: nothing of them is left, however they are made to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from timbrel.errors import ConfigurationError
from timbrel.serving.processes import Child, check_port

# Starts a grandchild in a session of its own, as BentoML's supervisor does, and prints its id.
FAMILY = """
import subprocess, sys, time, signal
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(grandchild.pid, flush=True)
try:
    time.sleep(300)
finally:
    grandchild.terminate()
    grandchild.wait()
"""


def _start(tmp_path: Path, *arguments: str) -> tuple[Child, int]:
    child = Child.start(
        "family",
        [sys.executable, "-c", FAMILY, *arguments],
        environment=os.environ,
        log=tmp_path / "logs" / "family.log",
        folder=tmp_path,
    )
    while not (text := child.last_lines(1)):
        assert child.running
        time.sleep(0.02)
    return child, int(text)


def _gone(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_clean_stop_takes_the_grandchild_along(tmp_path: Path) -> None:
    child, grandchild = _start(tmp_path)
    assert child.stop(signal.SIGINT, 60) is True
    assert not child.running
    assert _gone(grandchild)


def test_what_does_not_stop_is_killed_with_its_grandchild(tmp_path: Path) -> None:
    child, grandchild = _start(tmp_path, "stubborn")
    assert child.stop(signal.SIGTERM, 0.3) is False
    assert not child.running
    # Killed is killed, but on a busy machine not at once gone; left alone, it would live for minutes.
    deadline = time.monotonic() + 10.0
    while not _gone(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _gone(grandchild)


def test_stopping_what_has_ended_is_fine(tmp_path: Path) -> None:
    child = Child.start(
        "short", [sys.executable, "-c", "print('why')"], environment={}, log=tmp_path / "log", folder=tmp_path
    )
    child.process.wait()
    assert child.stop(signal.SIGTERM, 10) is True
    assert child.last_lines() == "why"


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from timbrel.serving.processes import Child\n"
        "child = Child.start('x', [sys.executable, '-c', 'import time; time.sleep(300)'],"
        " environment=os.environ, log=Path(sys.argv[1]) / 'log', folder=Path(sys.argv[1]))\n"
        "print(child.process.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not _gone(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if _gone(child):
            break
        time.sleep(0.05)
    assert _gone(child)


def test_nothing_of_the_parent_runs_in_the_child(tmp_path: Path) -> None:
    """Neither what libraries have to do at a fork, nor that SIGINT is ignored."""
    code = (
        "import os, signal, sys; from pathlib import Path; from timbrel.serving.processes import Child\n"
        "os.register_at_fork(after_in_child=lambda: os._exit(9))\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "said = 'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'\n"
        "child = Child.start('x', [sys.executable, '-c', said],"
        " environment=os.environ, log=Path(sys.argv[1]) / 'log', folder=Path(sys.argv[1]))\n"
        "print(child.process.wait())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert (tmp_path / "log").read_text() == "True\n"


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path: Path) -> None:
    child = Child.start(
        "x", ["no-such-program"], environment=os.environ, log=tmp_path / "log", folder=tmp_path
    )
    assert child.process.wait() == 1
    assert child.last_lines(1) == "no-such-program: No such file or directory"


def test_a_free_port_is_accepted_and_a_busy_one_is_named_with_its_variable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            check_port("127.0.0.1", port, "triton_grpc_port")
        assert f"port {port} on 127.0.0.1" in caught.value.message
        assert "TIMBREL_TRITON_GRPC_PORT" in caught.value.message
        assert "\n" not in caught.value.message
    check_port("127.0.0.1", port, "triton_grpc_port")


def test_an_address_of_another_host_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        check_port("192.0.2.1", 3000, "http_port")
