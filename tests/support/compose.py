"""deploy/compose.yaml as Docker's own program reads it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from support.tools import tool
from timbrel.settings import ROOT

DEPLOY = ROOT / "deploy"


def compose(*overrides: str, **variables: str) -> dict[str, Any]:
    """The whole configuration with the values of .env.example and of ``variables``."""
    command = [
        tool("docker-compose"),
        "--env-file",
        str(DEPLOY / ".env.example"),
        "-f",
        str(DEPLOY / "compose.yaml"),
    ]
    for name in overrides:
        command += ["-f", str(DEPLOY / name)]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    read = subprocess.run(
        [*command, "config", "--format", "json"], env=environment, capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    assert read.stderr == ""
    found: dict[str, Any] = json.loads(read.stdout)
    return found
