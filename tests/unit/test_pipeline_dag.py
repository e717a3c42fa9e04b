"""dvc.yaml says what the code does: each stage depends on what it imports, and is given the sections it reads."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from timbrel.params import Params
from timbrel.stages import STAGES

ROOT = Path(__file__).parents[2]
# Carried by every stage, and changing nothing of what it computes.
CARRIERS = (
    "timbrel.params",
    "timbrel.tracking",
    "timbrel.errors",
    "timbrel.files",
    "timbrel.stages.__main__",
)


@cache
def pipeline() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    return values


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("timbrel", exclude_type_checking_imports=True, cache_dir=None)


def modules_of(stage: str) -> set[str]:
    """The files that a stage's module imports, directly or not."""
    waiting = [f"timbrel.stages.{stage}"]
    found = set(waiting)
    while waiting:
        for module in imports().find_modules_directly_imported_by(waiting.pop()):
            carrier = any(module == name or module.startswith(f"{name}.") for name in CARRIERS)
            if module.startswith("timbrel") and module not in found and not carrier:
                found.add(module)
                waiting.append(module)
    paths = {Path("src", *module.split(".")) for module in found}
    return {f"{path}.py" for path in paths if not (ROOT / path).is_dir()}


def test_the_stages_are_those_of_the_code() -> None:
    assert list(pipeline()["stages"]) == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_modules_it_imports(stage: str) -> None:
    listed = {dep for dep in pipeline()["stages"][stage]["deps"] if dep.startswith("src/")}
    needed = modules_of(stage)
    assert listed == needed, f"{stage}: add {sorted(needed - listed)}, remove {sorted(listed - needed)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_given_the_sections_that_its_module_reads(stage: str) -> None:
    source = (ROOT / "src/timbrel/stages" / f"{stage}.py").read_text()
    read = set(re.findall(r"\bparams\.(\w+)", source))
    assert read <= set(Params.model_fields)
    assert set(STAGES[stage]) == read
    assert set(pipeline()["stages"][stage].get("params", ())) == read


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_folders_that_its_module_names(stage: str) -> None:
    source = (ROOT / "src/timbrel/stages" / f"{stage}.py").read_text()
    named = {f"data/{name}" for name in re.findall(r'"data" / "(\w+)"', source)}
    named |= {f"data/{name}" for name in re.findall(r'"data/(\w+)', source)}
    entry = pipeline()["stages"][stage]
    known = set(entry["deps"]) | {out for out in entry["outs"] if isinstance(out, str)}
    assert named <= known, f"{stage}: dvc.yaml lacks {sorted(named - known)}"


def test_every_stage_has_its_report_among_the_metrics() -> None:
    for stage in STAGES:
        assert f"reports/stages/{stage}.json" in pipeline()["metrics"]


# Of no stage: the seed, which several have, and what decides about a bundle that is built.
@pytest.mark.parametrize(
    "section", [name for name in Params.model_fields if name not in ("seed", "promotion")]
)
def test_every_setting_is_read_by_a_stage(section: str) -> None:
    sources = [
        (ROOT / "src/timbrel/stages" / f"{stage}.py").read_text()
        for stage, sections in STAGES.items()
        if section in sections
    ]
    # What starts a stage in several processes reads how many.
    sources.append((ROOT / "src/timbrel/stages/together.py").read_text())
    annotation: Any = Params.model_fields[section].annotation
    unread = {field for field in annotation.model_fields if not any(f".{field}" in text for text in sources)}
    assert not unread
