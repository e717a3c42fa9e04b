"""deploy/kubernetes as kubectl builds it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from support.tools import tool
from timbrel.settings import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"


def built(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a kustomization by kind and name; generated names lose the hash at their end."""
    made = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder), "--load-restrictor=LoadRestrictionsRootOnly"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    found = {}
    for each in yaml.safe_load_all(made.stdout):
        name = each["metadata"]["name"]
        if each["kind"] == "ConfigMap":
            name = name.rpartition("-")[0]
        found[each["kind"], name] = each
    return found
