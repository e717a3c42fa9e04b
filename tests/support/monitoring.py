"""Prometheus and Alertmanager for the tests: the project's own configuration, with time made short, and a receiver."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.prometheus import hurried
from support.serving import Serving, until

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
RULES = MONITORING / "prometheus" / "rules"
# PromQL's words that no bracket follows at once.
_WORDS = {
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "bool",
    "offset",
}


def need(*programs: str) -> None:
    """Skip where one of Debian's programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: apt-get install prometheus prometheus-alertmanager")


def rules() -> list[dict[str, Any]]:
    """Every rule of every file, recording and alerting."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards() -> dict[str, dict[str, Any]]:
    files = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """All PromQL there is: of rules and of dashboards."""
    shown = [
        target["expr"]
        for board in dashboards().values()
        for panel in panels(board)
        for target in panel["targets"]
    ]
    return [rule["expr"] for rule in rules()] + [query.replace("$__rate_interval", "1m") for query in shown]


def metric_names(query: str) -> set[str]:
    """The metrics that a PromQL query asks for."""
    bare = re.sub(r'"[^"]*"', '""', query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w:.])([A-Za-z_:][\w:]*)\s*(\()?", bare)
    return {name for name, bracket in names if not bracket and name not in _WORDS}


def label_values(query: str) -> set[tuple[str, str, str]]:
    """Metric, label, value of every equality, alternative by alternative, that a query demands."""
    found = set()
    for name, inside in re.findall(r"([A-Za-z_:][\w:]*)\{([^}]*)\}", query):
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', inside):
            found |= {(name, label, value) for value in values.split("|")}
    return found


@dataclass
class Receiver:
    """A webhook that remembers: (receiver, status, alert) of every notification."""

    port: int = 0
    told: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def heard(self, alert: str, status: str = "firing") -> dict[str, Any] | None:
        """The first notification of an alert, with the receiver it was for."""
        for receiver, what, notified in list(self.told):
            if what == status and notified["labels"]["alertname"] == alert:
                return {"receiver": receiver, **notified}
        return None

    def wait(self, alert: str, status: str = "firing", seconds: float = 90) -> dict[str, Any]:
        with suppress(AssertionError):  # the next line says what was heard instead
            until(lambda: self.heard(alert, status) is not None, seconds)
        found = self.heard(alert, status)
        assert found is not None, sorted({(each["labels"]["alertname"], what) for _, what, each in self.told})
        return found


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that listens on a free port."""
    known = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known.told += [(body["receiver"], alert["status"], alert) for alert in body["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Monitoring:
    """A running `make monitor`, without make."""

    process: subprocess.Popen[str]
    prometheus: str
    alertmanager: str
    state: Path
    output: Path

    @classmethod
    def start(cls, serving: Serving, webhook: str = "", factor: float = 1) -> Monitoring:
        """Start it beside a service, with a copy of the configuration whose every duration is divided by ``factor``."""
        folder = serving.state.parent / "monitoring"
        shutil.copytree(MONITORING, folder)
        if factor != 1:
            for path in [
                *folder.glob("prometheus/rules/*.yml"),
                folder / "alertmanager" / "alertmanager.yml",
            ]:
                path.write_text(hurried(path.read_text(), factor))
            config = folder / "prometheus" / "prometheus.yml"
            # Not as short as all else: a process short of time needs a moment for its answer.
            text = re.sub(
                r"(scrape|evaluation)_(interval|timeout): \d+s", r"\1_\2: 500ms", config.read_text()
            )
            config.write_text(text)
        ports = _free(2)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
        environment |= {
            "TIMBREL_STATE": str(serving.state),
            "TIMBREL_HTTP_PORT": str(serving.ports.http),
            "TIMBREL_GRPC_PORT": str(serving.ports.grpc),
            "TIMBREL_TRITON_HTTP_PORT": str(serving.ports.triton_http),
            "TIMBREL_TRITON_GRPC_PORT": str(serving.ports.triton_grpc),
            "TIMBREL_TRITON_METRICS_PORT": str(serving.ports.triton_metrics),
            "TIMBREL_PROMETHEUS_PORT": str(ports[0]),
            "TIMBREL_ALERTMANAGER_PORT": str(ports[1]),
        }
        command = [sys.executable, str(folder / "start.py"), *(["--webhook", webhook] if webhook else [])]
        output = folder / "output.txt"
        with output.open("w") as sink:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, text=True
            )
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        return cls(process, urls[0], urls[1], serving.state, output)

    def wait_ready(self) -> Monitoring:
        until(lambda: "Ctrl-C" in self.output.read_text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.output.read_text()
        return self

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query finds now."""
        answer = httpx.post(f"{self.prometheus}/api/v1/query", data={"query": query}, timeout=30)
        assert answer.status_code == 200, f"{query}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def firing(self) -> set[str]:
        return {series["metric"]["alertname"] for series in self.ask('ALERTS{alertstate="firing"}')}

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def _free(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
