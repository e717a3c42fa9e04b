"""``timbrel serve``: starts Triton and the HTTP service, watches both, and ends both.

    timbrel serve (this process)
      ├── tritonserver ── one stub per model
      └── bentoml serve ── TIMBREL_WORKERS workers

A Triton that dies is started again (``timbrel.serving.supervision``), a worker by BentoML. If the HTTP service dies as
a whole, or on Ctrl-C or SIGTERM, everything ends: first the HTTP service, which finishes what it has begun, then
Triton. Every run keeps its files in a folder of its own below TIMBREL_STATE, which is gone afterwards; logs stay.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil  # type: ignore[import-untyped]

from timbrel.errors import BundleError, ConfigurationError, Unavailable
from timbrel.library.bundle import Bundle
from timbrel.serving import access, tracing
from timbrel.serving.board import FOLDER_VARIABLE
from timbrel.serving.forwarding import Forwarder
from timbrel.serving.logs import JsonStream
from timbrel.serving.processes import Child, check_port
from timbrel.serving.publishing import Publisher
from timbrel.serving.supervision import Keeper
from timbrel.serving.triton_files import find_wheel
from timbrel.serving.triton_launcher import (
    Triton,
    check_triton_ports,
    remove_shared_memory,
    shared_memory_prefix,
)
from timbrel.serving.triton_repository import TritonRepository
from timbrel.settings import EngineKind, LogFormat, Settings, variable

SERVICE = "timbrel.serving.service:TimbrelService"
START_SECONDS = 240.0
# BentoML's supervisor gives its workers 30 s to answer what they have begun.
DRAIN_SECONDS = 40.0
# What uvicorn says when a worker's service cannot be made; BentoML would start that worker again and again.
_STARTUP_FAILED = "Application startup failed"
# While something is slow, say so this often.
PROGRESS_SECONDS = 3.0
_POLL_SECONDS = 0.2

Say = Callable[[str], None]


class _Stop(Exception):
    """SIGINT or SIGTERM came."""


@dataclass(slots=True)
class _Run:
    """What a run has started so far, and whether it shall end. ``models``: those that Triton can be given anew."""

    folder: Path
    say: Say
    triton: Triton | None = None
    models: TritonRepository | None = None
    service: Child | None = None
    forwarder: Forwarder | None = None
    stop_asked: bool = False

    def check(self) -> None:
        """Raise _Stop if a signal came, Unavailable if the HTTP service died."""
        if self.stop_asked:
            raise _Stop
        if self.service is not None and not self.service.running:
            raise Unavailable(self.service.obituary())

    def started(self, component: str, child: Child) -> None:
        """Pass on what this child writes, where that is wanted."""
        if self.forwarder is not None:
            self.forwarder.follow(component, child.log)

    def stop(self) -> None:
        """End every child; whatever does not want to is killed."""
        if self.service is not None and not self.service.stop(signal.SIGTERM, DRAIN_SECONDS):
            self.say(f"the HTTP service was killed: it did not stop within {DRAIN_SECONDS:.0f} s")
        if self.triton is not None and not self.triton.stop():
            self.say("Triton was killed: it did not stop in time")
        if self.forwarder is not None:
            self.forwarder.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_shared_memory(shared_memory_prefix(os.getpid()))


def serve(settings: Settings, say: Say | None = None) -> None:
    """Serve until SIGINT or SIGTERM; call it from the main thread. Returns after a clean stop.

    ``say`` gets one line at a time for the person at the terminal (default: standard error). With TIMBREL_LOG=json
    standard error gets everything instead, the children's lines, too, each as a JSON object.

    Raises ConfigurationError (a busy port, settings that do not fit), BundleError, or Unavailable when a child dies
    or does not come up; nothing is left running then.
    """
    stream = JsonStream() if settings.log is LogFormat.JSON else None
    say = say or stream or _to_stderr
    access.check_start(settings)
    tracing.check(settings)
    check_port(settings.host, settings.http_port, "http_port")
    if settings.grpc:
        # The workers share this port, and would share it with another service of the same user, too.
        check_port(settings.grpc_host, settings.grpc_port, "grpc_port")
    with _progress(say, "checking the bundle"):
        bundle = _opened(settings)
        description = f"bundle {bundle.id[:12]}: {len(bundle.patches)} patches, {len(bundle.renders)} renders"
        bundle.close()
    say(description)
    settings.state.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(settings.state)
    run = _Run(Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=settings.state)), say)
    if stream is not None:
        run.forwarder = Forwarder(stream)
    with _signals(run):
        try:
            publisher = Publisher(settings, run.folder, say, run.check)
            copied = settings.model_copy(update={"bundle": publisher.copied()})
            environment = os.environ | _engine(copied, run)
            publisher.begin(run.models)
            if settings.encoders is not None:
                beside = run.triton.encoders if run.triton else ()
                say(
                    f"encoders beside the bundle's models: {', '.join(beside) or 'none, for no Triton is started'}"
                )
            _start_service(settings, run, environment)
            if settings.grpc:
                say(f"gRPC (timbrel.v1): {settings.grpc_target}")
            say(
                f"ready: {settings.url} (documentation at {settings.url}/docs); logs in {settings.state / 'logs'}"
            )
            say("Ctrl-C stops it")
            keeper = Keeper(run.triton, say, run.check) if run.triton else None
            while True:
                run.check()
                if keeper is not None:
                    keeper.tend()
                publisher.tend()
                time.sleep(_POLL_SECONDS)
        except _Stop:
            say("stopping …")
        finally:
            run.stop()
    say("stopped")


def _opened(settings: Settings) -> Bundle:
    try:
        return Bundle.open(settings.bundle)
    except BundleError as error:
        if settings.bundle.parent != settings.live:
            raise
        raise BundleError(
            f"the champion cannot be served ({error.message}): `timbrel bundle promote {settings.bundle.name[:12]}` "
            "puts it back, `timbrel bundle rollback` takes the one before"
        ) from None


def _engine(settings: Settings, run: _Run) -> dict[str, str]:
    """Start Triton where it is wanted and can run; returns the variables that tell the workers."""
    engine, url = variable("engine"), variable("triton_url")
    if settings.engine is EngineKind.INPROCESS:
        run.say("models run in the workers (TIMBREL_ENGINE=inprocess)")
        return {engine: EngineKind.INPROCESS.value}
    if settings.triton_url:
        if settings.triton_repository is not None:
            run.say(f"giving the Triton at {settings.triton_url} its models")
            run.models = TritonRepository.shared(settings, settings.triton_repository, run.check)
        run.say(f"models run in the Triton at {settings.triton_url}")
        return {engine: EngineKind.TRITON.value, url: settings.triton_url}
    wheel, reason = find_wheel()
    if wheel is None:
        if settings.engine is EngineKind.TRITON:
            raise ConfigurationError(f"Triton cannot run here: {reason}; set TIMBREL_ENGINE=inprocess")
        run.say(f"Triton cannot run here ({reason}): models run in the workers")
        return {engine: EngineKind.INPROCESS.value}
    check_triton_ports(settings)
    run.say("starting Triton")
    folder = run.folder / "triton"
    folder.mkdir()
    run.triton = Triton.start(settings, wheel, folder)
    run.started("triton", run.triton.child)
    run.triton.wait_ready(run.say, run.check)
    run.models = run.triton.repository
    run.say(
        f"Triton: gRPC {run.triton.grpc_url}, HTTP {run.triton.http_url}, "
        f"metrics http://127.0.0.1:{settings.triton_metrics_port}/metrics"
    )
    return {engine: EngineKind.TRITON.value, url: run.triton.grpc_url}


def _start_service(settings: Settings, run: _Run, environment: dict[str, str]) -> None:
    """Start the HTTP service and wait until it answers."""
    run.say(f"starting the HTTP service with {settings.workers} workers")
    # BentoML keeps the workers' metrics below its home: two services with one home delete each other's.
    home, temporary = run.folder / "bentoml", run.folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    for name in Settings.model_fields:
        if name not in ("engine", "triton_url"):
            value = getattr(settings, name)
            environment[variable(name)] = "" if value is None else str(value)
    environment |= {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "TMPDIR": str(temporary),
        FOLDER_VARIABLE: str(run.folder),
        "PYTHONUNBUFFERED": "1",
        # Whoever asks: its address is the socket's, not what a proxy's header says.
        "FORWARDED_ALLOW_IPS": "",
    }
    # Spans are ours (timbrel.serving.tracing): BentoML's would say the same once more, and cost each request half a
    # millisecond even where nobody collects them.
    environment.setdefault("BENTOML_CONFIG_OPTIONS", "tracing.excluded_urls=.*")
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE]
    command += ["--host", settings.host, "--port", str(settings.http_port)]
    run.service = Child.start(
        "the HTTP service",
        command,
        environment=environment,
        log=settings.state / "logs" / "service.log",
        folder=run.folder,
    )
    run.started("service", run.service)
    started = told = time.monotonic()
    while not _answers(f"{settings.url}/readyz"):
        run.check()
        now = time.monotonic()
        if _STARTUP_FAILED in run.service.tail():
            raise Unavailable(
                f"the HTTP service cannot start: {_reason(run.service)} (log: {run.service.log})"
            )
        if now - started > START_SECONDS:
            raise Unavailable(
                f"the HTTP service was not ready after {START_SECONDS:.0f} s: see {run.service.log}"
            )
        if now - told >= PROGRESS_SECONDS:
            told = now
            run.say(f"the HTTP service is loading the bundle … {now - started:.0f} s")
        time.sleep(_POLL_SECONDS)


def _reason(service: Child) -> str:
    """The error in a worker's traceback: its last line that names one of ours, or any."""
    # A traceback in JSON is one line.
    told = service.tail().replace("\\n", "\n")
    lines = [line.strip() for line in told.splitlines() if "Error: " in line]
    ours = [line for line in lines if line.startswith("timbrel.errors.")]
    return (ours or lines or ["its log tells more"])[-1].removeprefix("timbrel.errors.")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _signals(run: _Run) -> Iterator[None]:
    """SIGINT and SIGTERM are remembered, and looked at between steps: a child that is being started is not lost."""

    def ask(number: int, frame: FrameType | None) -> None:
        run.stop_asked = True

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _progress(say: Say, what: str) -> Iterator[None]:
    """Say what was done if it took long."""
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    if seconds >= PROGRESS_SECONDS:
        say(f"{what} took {seconds:.0f} s")


def _remove_leftovers(state: Path) -> None:
    """Remove the folders and shared memory of runs whose process was killed."""
    for folder in state.glob("run-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
            remove_shared_memory(shared_memory_prefix(int(owner)))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
