"""Promotion, rollback, registration and pulling, killed at every step: one whole bundle is live, always.

Every change of a file or of MLflow's database is a step (``support.killed``); the kills are SIGKILL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.registry import ROOT, THRESHOLDS, empty_registry, other_bundles, promoter, register
from support.tiny_bundle import tiny_bundle_folder

from timbrel.library.bundle_copy import copy_whole
from timbrel.library.manifest import read_manifest

COMMANDS = ("promote", "rollback", "register", "pull")


@dataclass(frozen=True)
class Base:
    """A registry with a champion and one before, a third version, and a bundle that it does not know."""

    folder: Path
    champion: str
    previous: str
    new: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where that can be: a kill takes nothing away that was written, and no disk has to be waited for."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("killed")
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="timbrel-killed-") as temporary:
        yield Path(temporary)


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    registry = empty_registry(folder / "base")
    previous, first, new = (register(registry, bundle) for bundle in (tiny_bundle_folder(), *other_bundles()))
    for version in (previous, first):
        promoter(registry, folder / "base").promote(str(version.number), THRESHOLDS)
    unknown = folder / "unknown"
    copy_whole(tiny_bundle_folder(), unknown)
    # Another bundle of the same files: it says otherwise how it wants to be searched.
    manifest = read_manifest(unknown / "manifest.json")
    other = replace(manifest, search=replace(manifest.search, candidates=99))
    (unknown / "manifest.json").write_bytes(replace(other, id=other.content_id()).to_json())
    names = {"new": new.bundle, "previous": previous.bundle, "unknown": str(unknown)}
    (folder / "names.json").write_text(json.dumps(names))
    copy_whole(first.folder, folder / "base" / "pulled")
    return Base(folder, first.bundle, previous.bundle, new.bundle)


@pytest.fixture(scope="module")
def seen(base: Base) -> dict[str, list[dict[str, Any]]]:
    """What ``support.killed`` saw after each kill, for each command."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
    program = [sys.executable, "-m", "support.killed", str(base.folder), *COMMANDS]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    for what, kills in seen.items():
        print(f"{what}: killed before {len(kills)} steps: {[each['step'] for each in kills]}")
    return seen


@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", COMMANDS)
def test_whatever_is_killed_one_whole_bundle_is_live(seen: dict[str, Any], what: str) -> None:
    assert len(seen[what]) >= 5
    for each in seen[what]:
        assert each["killed"]
        for looked in (each["after"], each["finally"]):
            assert looked["live"] in looked["whole"]
            assert all(name in (bundle, "pulled") for name, bundle in looked["whole"].items())


@pytest.mark.parametrize("what", ["promote", "rollback"])
def test_a_change_of_the_champion_is_made_whole_or_not_at_all(
    base: Base, seen: dict[str, Any], what: str
) -> None:
    wanted = base.new if what == "promote" else base.previous
    kills = seen[what]
    live = [each["after"]["live"] for each in kills]
    changed = live.index(wanted)
    assert set(live[:changed]) == {base.champion}
    assert set(live[changed:]) == {wanted}
    for each in kills:
        assert each["finally"]["live"] == wanted
        assert each["aliases"]["champion"] == wanted
        assert each["aliases"]["previous"] == base.champion
        assert each["left"] == sorted([wanted, base.champion, "live.json"])
        kind = {"promote": "promotion", "rollback": "rollback"}[what]
        assert each["changes"] == [
            [1, "promotion", base.previous], [2, "promotion", base.champion], [3, kind, wanted],
        ]  # fmt: skip
        assert each["recorded"] == [1, 2, 3]


def test_a_registration_makes_one_version(base: Base, seen: dict[str, Any]) -> None:
    unknown = read_manifest(base.folder / "unknown" / "manifest.json").id
    for each in seen["register"]:
        assert sorted(each["bundles"]) == sorted([base.champion, base.previous, base.new, unknown])
        assert each["aliases"] == {"champion": base.champion, "previous": base.previous, "candidate": unknown}


def test_a_pulled_bundle_is_the_former_one_or_the_new_one(base: Base, seen: dict[str, Any]) -> None:
    pulled = [each["after"]["whole"]["pulled"] for each in seen["pull"]]
    assert pulled == sorted(pulled, key=[base.champion, base.new].index)
    for each in seen["pull"]:
        assert each["finally"]["whole"]["pulled"] == base.new
        assert each["beside"] == []
