"""Child processes that end when they should: with their parent, and with everything they started."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from timbrel.errors import ConfigurationError
from timbrel.settings import variable

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""For processes that share the cores. BLAS has a thread for each of them, with a stack and a buffer, and lets it spin
while it waits: of the 36 ms that a search took the processors 17 were that."""
_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 16_000
# Loaded before any fork: between fork and exec only async-signal-safe work is allowed.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Ask Linux to send this process SIGTERM when the thread that started it is gone, even by SIGKILL."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


# What a child does before it becomes the program: Linux is to send it SIGTERM when we are gone, and SIGINT is to reach
# it, which a script that starts us with "&" has us ignore, and children inherit that. Not in a preexec_fn: that runs in
# a copy of this process, threads, locks and all, and gRPC's own work at a fork has been seen to crash there.
_FIRST = f"""
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the process that started this one is gone")
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{{sys.argv[2]}}: {{error.strerror}}")
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A process in a session of its own, so that the terminal's Ctrl-C reaches only its parent."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        folder: Path,
        again: bool = False,
    ) -> Child:
        """Start ``command`` in ``folder``; its output goes to ``log``, after what is there if it is started ``again``.

        Call it from the main thread.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab" if again else "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _FIRST, str(os.getpid()), *command],
                # Whoever set one of them had a reason.
                env=ONE_THREAD | dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self, with_signal: signal.Signals, timeout: float) -> bool:
        """Send the signal and wait until the process and all that it started are gone; after ``timeout`` seconds
        kill what is left. True if nothing had to be killed.
        """
        tree = self._tree()
        if self.running:
            self.process.send_signal(with_signal)
        deadline = time.monotonic() + timeout
        while self.running or any(map(_alive, tree)):
            if time.monotonic() > deadline:
                _kill(tree)
                self.process.kill()
                self.process.wait()
                return False
            time.sleep(0.05)
        return True

    def _tree(self) -> list[psutil.Process]:
        """All that it started: descendants, and what else is in its session (if it is gone itself)."""
        try:
            descendants = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            descendants = []
        known = {process.pid for process in descendants} | {self.process.pid}
        members = [
            process for process in psutil.process_iter() if process.pid not in known and self._leads(process)
        ]
        return descendants + members

    def _leads(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.process.pid
        except OSError:
            return False

    def tail(self) -> str:
        """The end of the log, at most some thousand characters."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace")

    def obituary(self) -> str:
        """How it ended, in one line."""
        code, last = self.process.returncode, self.last_lines(1).strip()
        return f"{self.name} ended by itself (exit status {code}): {last} (log: {self.log})"

    def last_lines(self, count: int = 5) -> str:
        """The last lines of the log, for the message that tells why it died."""
        return "\n".join(self.tail().splitlines()[-count:])


def _alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie, which only its parent can remove, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def check_port(host: str, port: int, field: str) -> None:
    """Raise ConfigurationError, naming port and variable, if nothing can listen on ``host:port``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connection is in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"port {port} on {host} cannot be used ({reason}): stop what listens there, or set "
                f"{variable(field)} to a free port"
            ) from None
