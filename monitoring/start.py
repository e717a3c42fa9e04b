"""`make monitor`: Prometheus and Alertmanager beside the service, on loopback, with the rules of this folder.

Both come from Debian (`apt-get install prometheus prometheus-alertmanager`). They find the service at the ports that
the TIMBREL_ variables name; what they measure and know lies below TIMBREL_STATE/monitoring and outlives them. Ctrl-C
or SIGTERM ends both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from timbrel import settings as environment
from timbrel.errors import ConfigurationError, TimbrelError, Unavailable
from timbrel.files import atomic_write
from timbrel.serving.processes import Child, check_port
from timbrel.settings import EngineKind, Settings

HERE = Path(__file__).parent
HOST = "127.0.0.1"
PACKAGES = "prometheus prometheus-alertmanager"
# The objectives are over 30 days.
RETENTION = "35d"
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def main() -> int:
    """Run until told to end; 0, or 2 after one line that says what to do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--webhook", default="", help="URL that every notification is posted to")
    parser.add_argument(
        "--rules", type=Path, default=HERE / "prometheus" / "rules", help="folder of other rules"
    )
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    children: list[Child] = []
    try:
        settings = environment.load()
        folder = lay_out(settings, options.rules, options.webhook)
        for name, command, url in commands(settings, folder):
            log = settings.state / "logs" / f"{name.lower()}.log"
            children.append(Child.start(name, command, environment=os.environ, log=log, folder=folder))
            _wait_ready(children[-1], url, stop)
            say(f"{name}: {url} (log: {log})")
        say("Ctrl-C stops both")
        while not stop.wait(0.5):
            for child in children:
                if not child.running:
                    raise Unavailable(child.obituary())
    except TimbrelError as error:
        say(f"timbrel: {error.message}")
        return 0 if stop.is_set() else 2
    finally:
        for child in reversed(children):
            child.stop(signal.SIGTERM, STOP_SECONDS)
    return 0


def lay_out(settings: Settings, rules: Path, webhook: str) -> Path:
    """Write the configuration for these settings below TIMBREL_STATE; returns its folder.

    ``webhook``: where every receiver posts to; empty for those of alertmanager.yml as they are.
    """
    folder = settings.state / "monitoring"
    shutil.rmtree(folder / "rules", ignore_errors=True)
    shutil.copytree(rules, folder / "rules")
    (folder / "targets").mkdir(exist_ok=True)
    triton = (
        []
        if settings.engine is EngineKind.INPROCESS
        else [f"{_triton_host(settings)}:{settings.triton_metrics_port}"]
    )
    targets = {
        "timbrel": [settings.url.removeprefix("http://")],
        "triton": triton,
        "prometheus": [f"{HOST}:{settings.prometheus_port}"],
        "alertmanager": [f"{HOST}:{settings.alertmanager_port}"],
    }
    for job, addresses in targets.items():
        _write(folder / "targets" / f"{job}.yml", yaml.safe_dump([{"targets": addresses}]))
    _write(folder / "prometheus.yml", (HERE / "prometheus" / "prometheus.yml").read_text())
    routes = yaml.safe_load((HERE / "alertmanager" / "alertmanager.yml").read_text())
    if webhook:
        for receiver in routes["receivers"]:
            receiver["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    _write(folder / "alertmanager.yml", yaml.safe_dump(routes, sort_keys=False))
    return folder


def commands(settings: Settings, folder: Path) -> list[tuple[str, list[str], str]]:
    """Name, command and address of each server. Raises ConfigurationError if one is missing, or its port busy."""
    alertmanager = _found("prometheus-alertmanager", "alertmanager")
    prometheus = _found("prometheus")
    for field in ("alertmanager_port", "prometheus_port"):
        check_port(HOST, getattr(settings, field), field)
    return [
        (
            "Alertmanager",
            [
                alertmanager,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={HOST}:{settings.alertmanager_port}",
                "--cluster.listen-address=",  # there is one of it
            ],
            f"http://{HOST}:{settings.alertmanager_port}",
        ),
        (
            "Prometheus",
            [
                prometheus,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--storage.tsdb.retention.time={RETENTION}",
                f"--web.listen-address={HOST}:{settings.prometheus_port}",
            ],
            f"http://{HOST}:{settings.prometheus_port}",
        ),
    ]


def _found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise ConfigurationError(f"{names[0]} is not here: apt-get install --no-install-recommends {PACKAGES}")


def _triton_host(settings: Settings) -> str:
    return settings.triton_url.rpartition(":")[0] or HOST


def _wait_ready(child: Child, url: str, stop: threading.Event) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(url):
        if not child.running:
            raise Unavailable(child.obituary())
        if stop.is_set() or time.monotonic() > deadline:
            raise Unavailable(f"{child.name} was not ready when it was ended: see {child.log}")
        stop.wait(0.1)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
