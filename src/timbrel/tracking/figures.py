"""What was measured on a bundle, out of the reports of the checkout that built it.

    search.top1, synthesis.within_50_cents, …   reports/stages/evaluate.json
    pgesam.heldout.lsd_db.transformer, …        reports/stages/pgesam.json
    retrieval.top1, retrieval.stage2.top1, …    reports/retrieval.json, `timbrel evaluate instruments`

A report counts only if it is of this bundle: reports/search.json, which the evaluate stage writes, and
reports/retrieval.json name the bundle that they measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timbrel.errors import ConfigurationError
from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import read_manifest
from timbrel.params import Params, load
from timbrel.tracking.checkout import flatten
from timbrel.tracking.registry import Known, known_tags


def known_of(bundle: Path, root: Path, params: Params | None = None, run: str | None = None) -> Known:
    """What the checkout at ``root`` knows of a bundle.

    ``params``: what it was built with; without, those of the checkout if the bundle says that it was built with them.
    ``run``: the MLflow run that measured it.
    """
    manifest = read_manifest(bundle / MANIFEST_NAME)
    if params is None:
        params = _params_of(root / "params.yaml", manifest.provenance.params_sha256)
    settings = flatten(params.model_dump(mode="json", exclude={"promotion"})) if params else {}
    return Known(
        figures=figures_of(root / "reports", manifest.id), settings=settings, run=run, tags=known_tags(root)
    )


def figures_of(reports: Path, bundle: str) -> dict[str, float]:
    """The figures of the bundle with this id, by name; none of a report that is missing or of another bundle."""
    figures: dict[str, float] = {}
    if _read(reports / "search.json").get("bundle") == bundle:
        figures |= _numbers(_read(reports / "stages" / "evaluate.json").get("metrics", {}))
        figures |= _numbers(_read(reports / "stages" / "pgesam.json").get("metrics", {}), "pgesam.")
    retrieval = _read(reports / "retrieval.json").get("instruments", {})
    if retrieval.get("bundle") == bundle:
        stages = {name: retrieval.get("stages", {}).get(name, {}) for name in ("stage1", "stage2")}
        own = {name: retrieval[name] for name in ("top1", "top5") if name in retrieval}
        figures |= _numbers(flatten({**own, **stages}), "retrieval.")
    return figures


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    return {
        f"{prefix}{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _params_of(path: Path, digest: str) -> Params | None:
    try:
        params = load(path)
    except ConfigurationError:
        return None
    return params if hashlib.sha256(params.model_dump_json().encode()).hexdigest() == digest else None
