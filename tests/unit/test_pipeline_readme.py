"""The README says what is: its generated parts are up to date, what it names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts/readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date(generator: ModuleType) -> None:
    assert generator.filled(TEXT) == TEXT, "run `make readme`"
    for part in ("stages", "commands", "pgesam"):
        assert f"<!-- {part} -->" in TEXT


def test_a_generated_part_is_replaced_whole(generator: ModuleType) -> None:
    text = "a\n<!-- commands -->\nold\n<!-- end commands -->\nb\n"
    filled = generator.filled(text)
    assert filled.startswith("a\n<!-- commands -->\n```\n  make help")
    assert filled.endswith("```\n<!-- end commands -->\nb\n")
    assert "old" not in filled


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (41, "41 s"), (3725, "62 min 05 s")]
)
def test_durations(generator: ModuleType, seconds: float, text: str) -> None:
    assert generator.duration(seconds) == text


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", TEXT)) <= targets


def test_every_path_of_the_layout_exists() -> None:
    layout = TEXT.split("## Layout")[1].split("## ")[0]
    named = []
    for line in filter(str.strip, layout.splitlines()):
        left = line[:29]  # names stand left of the explanations
        inside = ROOT / "src/timbrel" if left.startswith("      ") else ROOT
        named += [inside / name for name in re.findall(r"[\w./]+", left)]
    assert len(named) > 15
    assert [path for path in named if not path.exists()] == []
