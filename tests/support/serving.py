"""Runs `timbrel serve` as a person would: a process of its own, real Triton, real BentoML, free ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil

START_SECONDS = 240
STOP_SECONDS = 90


@dataclass(frozen=True)
class Ports:
    http: int
    grpc: int
    triton_http: int
    triton_grpc: int
    triton_metrics: int


def free_ports() -> Ports:
    """Five ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(5)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


@dataclass
class Serving:
    """A running `timbrel serve`; ``lines()`` is what it told the terminal."""

    process: subprocess.Popen[bytes]
    ports: Ports
    state: Path
    output: Path

    @classmethod
    def start(
        cls, bundle: Path | None, folder: Path, *, ports: Ports | None = None, **variables: str
    ) -> Serving:
        """Start it; further variables are named without their prefix: ``workers="1"``. No bundle: the champion."""
        ports = ports or free_ports()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
        environment |= {
            "TIMBREL_BUNDLE": str(bundle or ""),
            "TIMBREL_STATE": str(folder / "state"),
            "TIMBREL_HTTP_PORT": str(ports.http),
            "TIMBREL_GRPC_PORT": str(ports.grpc),
            "TIMBREL_TRITON_HTTP_PORT": str(ports.triton_http),
            "TIMBREL_TRITON_GRPC_PORT": str(ports.triton_grpc),
            "TIMBREL_TRITON_METRICS_PORT": str(ports.triton_metrics),
        }
        environment |= {f"TIMBREL_{name.upper()}": value for name, value in variables.items()}
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "output.txt"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / "timbrel"), "serve"],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, ports, folder / "state", output)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    def channel(self) -> grpc.Channel:
        """A connection of its own: gRPC shares those of equal channels otherwise."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        return grpc.insecure_channel(self.grpc_target, options=options)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120)

    def lines(self) -> list[str]:
        return self.output.read_text(errors="replace").splitlines()

    def log(self, name: str) -> str:
        path = self.state / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_ready(self) -> Serving:
        return self.wait_line("ready: ")

    def wait_line(self, start: str) -> Serving:
        """Wait until it has said a line that starts so."""
        deadline = time.monotonic() + START_SECONDS
        while not any(line.startswith(start) for line in self.lines()):
            told = "\n".join([*self.lines(), self.log("triton")[-2000:], self.log("service")[-4000:]])
            assert self.process.poll() is None, f"it ended while starting:\n{told}"
            assert time.monotonic() < deadline, f"it was not ready in time:\n{told}"
            time.sleep(0.2)
        return self

    def family(self) -> list[psutil.Process]:
        """The process and everything it started."""
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that listen on the gRPC port: the workers that have started."""
        found = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                connections = process.net_connections("tcp")
                if any(
                    c.status == psutil.CONN_LISTEN and c.laddr.port == self.ports.grpc for c in connections
                ):
                    found.append(process)
        return found

    def use(self, bundle: Path) -> subprocess.CompletedProcess[str]:
        """`timbrel bundle use`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
        environment |= {"TIMBREL_STATE": str(self.state), "TIMBREL_HTTP_PORT": str(self.ports.http)}
        command = [str(Path(sys.executable).parent / "timbrel"), "bundle", "use", str(bundle)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    def used(self, bundle: Path) -> None:
        """The same, and it has to work."""
        result = self.use(bundle)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr

    def shared_memory(self) -> list[str]:
        return [path.name for path in Path("/dev/shm").glob(f"timbrel_{self.process.pid}_*")]

    def wait_end(self) -> int:
        return self.process.wait(timeout=STOP_SECONDS)

    def stop(self) -> int:
        """Ctrl-C, patiently; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.wait_end()
        except subprocess.TimeoutExpired:
            for process in self.family():
                process.kill()
            raise


def still_running(processes: list[psutil.Process]) -> list[str]:
    """Those that run, after a moment's patience for what is about to end."""
    deadline = time.monotonic() + 20
    while True:
        alive = [process for process in processes if _runs(process)]
        if not alive or time.monotonic() > deadline:
            return [str(process) for process in alive]
        time.sleep(0.1)


def until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Wait for what has to come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.05)


def triton_of(serving: Serving) -> psutil.Process:
    return next(process for process in serving.family() if process.name() == "tritonserver")


def unread(port: int) -> list[int]:
    """For each connection to a listener on ``port``: how many bytes have come that it has not read yet."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            if state == "01" and int(local.rpartition(":")[2], 16) == port:
                found.append(int(queues.partition(":")[2], 16))
    return found


def nothing_left(
    serving: Serving, family: list[psutil.Process], kept: frozenset[str] | set[str] = frozenset({"logs"})
) -> None:
    """After the end: no process, no shared memory, no file but what is ``kept``, no port."""
    assert still_running(family) == []
    assert serving.shared_memory() == []
    assert {path.name for path in serving.state.iterdir()} == kept
    for port in vars(serving.ports).values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
