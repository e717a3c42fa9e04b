"""Schemathesis asks a running service all that /docs.json allows, and much that it does not: no finding."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.serving import Serving

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
HOOKS = Path(__file__).parents[1] / "support" / "schemathesis_checks.py"
OPTIONS = (
    "--phases=examples,coverage,fuzzing",
    "--max-examples=15",
    "--seed=20261122",
    "--generation-deterministic",
    "--request-timeout=60",
    "--exclude-checks=positive_data_acceptance,not_a_server_error",  # ours are in their places: see the hooks
    "--no-color",
    "--suppress-health-check=all",
)


@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(serving: Serving, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{serving.url}/docs.json", *OPTIONS]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert cases is not None, done.stdout[-3000:]
    assert int(cases[1]) == int(cases[2]) > 300
