"""The documentation names what there is: pages, headings, commands, make targets, variables."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from timbrel.cli import main as timbrel
from timbrel.settings import Settings, variable

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "monitoring").rglob("*.md")])
# Read by the tests, the set-up and the deployment: no settings of the service.
ELSEWHERE = {
    "TIMBREL_SHARED", "TIMBREL_SCREENSHOTS", "TIMBREL_WEIGHTS", "TIMBREL_VENV", "TIMBREL_API_KEY",
}  # fmt: skip
WORDS = r"((?: [a-z][a-z0-9-]*)+)"
COMMANDS = re.compile(rf"^[ `$]*(?:\.venv/bin/)?timbrel{WORDS}|`timbrel{WORDS}", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a link may point at: headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    for match in COMMANDS.finditer(page.read_text()):
        words = (match[1] or match[2]).split()
        command: click.Command = timbrel
        while words and isinstance(command, click.Group):
            assert words[0] in command.commands, match[0]
            command = command.commands[words.pop(0)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_variable_that_is_named_exists(page: Path) -> None:
    settings = {variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"\bTIMBREL_[A-Z_]+[A-Z]", page.read_text())) - settings - ELSEWHERE == set()


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    named = set(re.findall(r"\]\(([^)\s]+)\)", index))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages <= named
