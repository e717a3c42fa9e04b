"""A real Prometheus over a running service, with rules whose hours are made seconds."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.serving import until

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(
    r"(?P<before>\[|\b(?:for|(?:group_|repeat_)?interval|group_wait): +)(?P<number>\d+)(?P<unit>ms|[smhd])\b"
)

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed: apt-get install --no-install-recommends prometheus",
)


def hurried(rules: str, factor: float) -> str:
    """The rules with every window, ``for`` and interval divided by ``factor``, and nothing else changed."""

    def shorter(found: re.Match[str]) -> str:
        milliseconds = round(int(found["number"]) * _UNITS[found["unit"]] / factor)
        return f"{found['before']}{max(milliseconds, 1)}ms"

    return _DURATION.sub(shorter, rules)


@dataclass
class Prometheus:
    """A running server; ``targets`` are scraped and rules evaluated twice a second."""

    process: subprocess.Popen[bytes]
    url: str

    @classmethod
    def start(cls, folder: Path, *, targets: Sequence[str], rules: Mapping[str, str]) -> Prometheus:
        """Keep everything in ``folder``; ``rules`` are texts by file name."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in rules.items():
            (folder / name).write_text(text)
        listed = "".join(f"          - {target}\n" for target in targets)
        named = "".join(f"  - {folder / name}\n" for name in rules)
        config = folder / "prometheus.yml"
        config.write_text(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  evaluation_interval: 500ms\n"
            f"rule_files:\n{named}"
            f"scrape_configs:\n  - job_name: timbrel\n    static_configs:\n      - targets:\n{listed}"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address={address}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        running = cls(process, f"http://{address}")
        try:
            until(running._answers, 60)
        except AssertionError:
            running.stop()
            raise AssertionError((folder / "prometheus.log").read_text()) from None
        return running

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The instant vector, by its labels."""
        data = self._get("/api/v1/query", query=expression)
        assert data["resultType"] == "vector", data
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in data["result"]}

    def value(self, expression: str) -> float | None:
        """The only value of the vector; None where it is empty."""
        values = list(self.query(expression).values())
        assert len(values) <= 1, f"{expression}: {values}"
        return values[0] if values else None

    def alerts(self) -> dict[tuple[str, ...], str]:
        """The states ("pending", "firing") of the alerts that are not quiet, by name and quantity."""
        return {
            (each["labels"]["alertname"], each["labels"].get("quantity", "")): each["state"]
            for each in self._get("/api/v1/alerts")["alerts"]
        }

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}{path}", params=parameters, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]
