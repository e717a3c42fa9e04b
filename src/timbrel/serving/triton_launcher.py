"""Starts the real Triton server from the wheel, without Docker and without a GPU, and ends it without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timbrel.errors import ConfigurationError, Unavailable
from timbrel.library.manifest import MODELS
from timbrel.serving import tracing
from timbrel.serving.processes import Child, check_port
from timbrel.serving.triton_files import TritonWheel, lay_out_backends
from timbrel.serving.triton_repository import TritonRepository
from timbrel.settings import Settings

HOST = "127.0.0.1"
START_SECONDS = 180.0
STOP_SECONDS = 30.0
_SHARED_MEMORY = Path("/dev/shm")

Progress = Callable[[str], None]


@dataclass(slots=True)
class Triton:
    """A server: gRPC at ``grpc_url``; ``stop()`` ends it and removes what it left.

    ``child`` is its process of now: ``start_again`` puts another in its place.
    ``encoders``: the names of those it serves beside the bundle's models.
    """

    child: Child
    folder: Path
    encoders: tuple[str, ...]
    settings: Settings
    command: tuple[str, ...]
    environment: Mapping[str, str]
    shared_memory_prefix: str

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.settings.triton_grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.settings.triton_http_port}"

    @classmethod
    def start(cls, settings: Settings, wheel: TritonWheel, folder: Path) -> Triton:
        """Lay out its files in the new folder ``folder`` and start it. ``wait_ready`` tells when it answers.

        Raises ConfigurationError if a port is busy, BundleError if a model is missing.
        """
        check_triton_ports(settings)
        if " " in str(folder):
            raise ConfigurationError(
                f"Triton takes no path with spaces such as {folder}: set TIMBREL_STATE to another"
            )
        lay_out_backends(wheel, folder / "backends")
        grpc_url = f"{HOST}:{settings.triton_grpc_port}"
        encoders = TritonRepository(settings, folder / "models", grpc_url).lay_out()
        # One server's regions are told from another's by the prefix, so that leftovers can be removed safely.
        prefix = f"{shared_memory_prefix(os.getpid())}{settings.triton_grpc_port}_"
        command = _command(settings, wheel, folder, prefix, [*MODELS, *encoders])
        environment = wheel.environment(os.environ)
        child = _started(settings, command, environment, folder)
        return cls(child, folder, tuple(encoders), settings, command, environment, prefix)

    def start_again(self) -> None:
        """Put another process in the place of one that died: the same models at the same ports.

        Raises ConfigurationError if a port is busy.
        """
        self._clear_up()
        check_triton_ports(self.settings)
        self.child = _started(self.settings, self.command, self.environment, self.folder, again=True)

    @property
    def repository(self) -> TritonRepository:
        """What it has loaded, and how it gets another bundle's models."""
        return TritonRepository(self.settings, self.folder / "models", self.grpc_url)

    def is_ready(self) -> bool:
        """Whether the server and all of its models answer."""
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_ready(
        self, progress: Progress, check: Callable[[], None], timeout: float = START_SECONDS
    ) -> None:
        """Return when every model is loaded; raises Unavailable, with the log's last word, if that never happens.

        ``check`` is called all the while; what it raises ends the waiting.
        """
        started = time.monotonic()
        told = started
        while not self.is_ready():
            now = time.monotonic()
            if not self.child.running:
                raise Unavailable(
                    f"Triton ended while starting (exit status {self.child.process.returncode}): {self._reason()} "
                    f"(log: {self.child.log})"
                )
            check()
            if now - started > timeout:
                raise Unavailable(f"Triton was not ready after {timeout:.0f} s: see {self.child.log}")
            if now - told >= 3:
                told = now
                progress(
                    f"Triton is loading {len(MODELS) + len(self.encoders)} models … {now - started:.0f} s"
                )
            time.sleep(0.1)

    def stop(self) -> bool:
        """End it and everything it started; True if nothing had to be killed."""
        clean = self._clear_up()
        shutil.rmtree(self.folder, ignore_errors=True)
        return clean

    def _clear_up(self) -> bool:
        """End its processes and remove their shared memory: a server that was killed leaves its stubs behind."""
        clean = self.child.stop(signal.SIGINT, STOP_SECONDS)
        remove_shared_memory(self.shared_memory_prefix)
        return clean

    def _reason(self) -> str:
        lines = self.child.log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("E") or "error:" in line.lower()]
        return (errors or lines or ["it wrote nothing"])[-1].strip()


def _started(
    settings: Settings,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    again: bool = False,
) -> Child:
    log = settings.state / "logs" / "triton.log"
    return Child.start("Triton", command, environment=environment, log=log, folder=folder, again=again)


def check_triton_ports(settings: Settings) -> None:
    """Raise ConfigurationError if one of Triton's three ports is taken."""
    for field in ("triton_http_port", "triton_grpc_port", "triton_metrics_port"):
        check_port(HOST, getattr(settings, field), field)


def shared_memory_prefix(owner: int) -> str:
    """How the names of all shared-memory regions start that servers of this launcher process make."""
    return f"timbrel_{owner}_"


def remove_shared_memory(prefix: str) -> None:
    """Remove regions that a killed server left in /dev/shm."""
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _command(
    settings: Settings, wheel: TritonWheel, folder: Path, prefix: str, models: Sequence[str]
) -> tuple[str, ...]:
    return (
        str(wheel.server),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        f"--cache-directory={wheel.caches}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models),
        f"--http-address={HOST}",
        f"--http-port={settings.triton_http_port}",
        f"--grpc-address={HOST}",
        f"--grpc-port={settings.triton_grpc_port}",
        f"--metrics-address={HOST}",
        f"--metrics-port={settings.triton_metrics_port}",
        f"--backend-config=onnxruntime,shm-region-prefix-name={prefix}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--exit-timeout-secs=10",
        "--disable-auto-complete-config",
        *tracing.triton_options(settings),
    )
