"""docs/reference is what the code says, and leaves nothing undescribed."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from timbrel.cli import main as timbrel
from timbrel.params import Params
from timbrel.settings import Settings, variable

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
GENERATOR = ROOT / "scripts" / "reference"


def rows(page: str) -> dict[str, str]:
    """First cell of every table's row -> its last."""
    lines = (REFERENCE / f"{page}.md").read_text().splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| `")]
    return {line[0].strip().split("`")[1]: line[-1].strip() for line in cells}


def test_every_page_is_up_to_date() -> None:
    said = subprocess.run(
        [sys.executable, str(GENERATOR), "--check"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr


def test_a_page_that_is_behind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GENERATOR))
    script = runpy.run_path(str(GENERATOR / "__main__.py"))
    pages = tmp_path / "docs" / "reference"
    pages.mkdir(parents=True)
    for page in REFERENCE.glob("*.md"):
        (pages / page.name).write_text(page.read_text())
    (pages / "errors.md").write_text("# Errors\n")
    behind = script["write"](pages, only_check=True)
    assert behind == [pages / "errors.md"]
    assert (pages / "errors.md").read_text() == "# Errors\n"
    assert script["write"](pages) == behind
    assert (pages / "errors.md").read_text() == (REFERENCE / "errors.md").read_text()
    assert script["write"](pages, only_check=True) == []


def paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from paths(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_of_a_build_is_described() -> None:
    described = rows("params")
    assert set(described) == set(paths(Params))
    assert [name for name, text in described.items() if not text] == []


def test_every_setting_of_the_service_is_described() -> None:
    described = rows("settings")
    assert set(described) == {variable(name) for name in Settings.model_fields}
    assert [name for name, text in described.items() if not text] == []


def test_metrics_and_errors_are_described() -> None:
    for page, some in (("metrics", "timbrel_requests_total"), ("errors", "deadline_exceeded")):
        described = rows(page)
        assert some in described
        assert [name for name, text in described.items() if not text] == []


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(f"{path} {name}", inner)


def test_every_command_and_every_option_is_described() -> None:
    page = (REFERENCE / "cli.md").read_text()
    for path, command in commands("timbrel", timbrel):
        assert f"## {path}\n" in page
        assert command.help, path
        without = [each.name for each in command.params if isinstance(each, click.Option) and not each.help]
        assert without == [], path
