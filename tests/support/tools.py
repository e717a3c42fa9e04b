"""Programs that the tests run and that dev.in brings: beside this interpreter, or on the PATH."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """Its path; skips the test (in CI: fails it) where it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: scripts/setup serve pipeline encoders dev")
    return found
