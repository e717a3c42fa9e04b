"""What is live: one file that names whole bundles; and bundles copied whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.registry import other_bundles
from support.tiny_bundle import tiny_bundle_folder

from timbrel import settings
from timbrel.errors import BundleError, Unavailable
from timbrel.library import champion
from timbrel.library.bundle import Bundle
from timbrel.library.bundle_copy import copy_whole
from timbrel.library.champion import Change, Live, Succession
from timbrel.library.difference import difference
from timbrel.library.manifest import read_manifest


def id_of(bundle: Path) -> str:
    return read_manifest(bundle / "manifest.json").id


def succession(folder: Path, bundle: str, instead_of: str | None) -> Succession:
    change = Change(
        number=1, kind="promotion", bundle=bundle, former=instead_of, when="2026-01-01T00:00:00+00:00", who="a@b"
    )  # fmt: skip
    live = Live(champion=bundle, previous=instead_of, changes=(change,))
    return Succession(folder=folder, live=live, instead_of=instead_of)


def test_the_champion_is_what_was_committed(tmp_path: Path) -> None:
    assert champion.read(tmp_path) is None
    first = succession(tmp_path, id_of(champion.place(tiny_bundle_folder(), tmp_path)), None)
    champion.commit(first)
    assert champion.read(tmp_path) == first.live
    other = id_of(champion.place(other_bundles()[0], tmp_path))
    with pytest.raises(Unavailable, match="another promotion came between"):
        champion.commit(succession(tmp_path, other, None))
    assert champion.read(tmp_path) == first.live
    champion.commit(succession(tmp_path, other, first.live.champion))
    assert Bundle.open(tmp_path / other).id == other


def test_a_champion_that_is_not_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing"):
        champion.commit(succession(tmp_path, "0" * 64, None))
    assert champion.read(tmp_path) is None


def test_what_is_neither_the_champion_nor_the_one_before_is_cleared(tmp_path: Path) -> None:
    ids = [id_of(champion.place(each, tmp_path)) for each in (tiny_bundle_folder(), *other_bundles())]
    champion.commit(succession(tmp_path, ids[0], None))
    champion.commit(succession(tmp_path, ids[1], ids[0]))
    # Left by one that was killed.
    shutil.copytree(tmp_path / ids[0], tmp_path / f".gone-{ids[2]}")
    (tmp_path / ".live.json.abc").write_text("half")
    champion.clear(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")}
    assert left == {ids[0], ids[1], "live.json"}


def test_a_damaged_file_is_said_and_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "live.json").write_text('{"champion": 3')
    with pytest.raises(BundleError, match="restore it, or remove it"):
        champion.read(tmp_path)


def test_the_settings_serve_the_champion_unless_a_bundle_is_named(tmp_path: Path) -> None:
    environment = {"TIMBREL_REGISTRY": str(tmp_path)}
    loaded = settings.load(environment)
    assert (loaded.bundle, loaded.follows_champion) == (settings.ROOT / "bundle", True)
    bundle = id_of(champion.place(tiny_bundle_folder(), tmp_path / "live"))
    champion.commit(succession(tmp_path / "live", bundle, None))
    loaded = settings.load(environment)
    assert (loaded.bundle, loaded.follows_champion) == (tmp_path / "live" / bundle, True)
    named = settings.load(environment | {"TIMBREL_BUNDLE": "/some/bundle"})
    assert (named.bundle, named.follows_champion) == (Path("/some/bundle"), False)
    assert not settings.load(environment, bundle=Path("/some/bundle")).follows_champion


def test_a_copy_is_whole_or_not_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(tiny_bundle_folder(), source)
    copy_whole(source, target)
    assert Bundle.open(target).id == id_of(source)
    model = source / "models" / "generator.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"generator.onnx does not match its hash"):
        copy_whole(source, target)
    model.unlink()
    with pytest.raises(BundleError, match=r"generator.onnx is missing"):
        copy_whole(source, target)
    assert Bundle.open(target).id == id_of(tiny_bundle_folder())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_known_files_are_linked_and_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    source = tiny_bundle_folder()
    manifest = read_manifest(source / "manifest.json")
    (tmp_path / ".copy.99999999-abc").mkdir()  # no process has this number
    first = tmp_path / "first"
    copy_whole(source, first)
    known = {entry.sha256: first / name for name, entry in manifest.files.items()}
    copy_whole(source, tmp_path / "copy", known=known)
    assert not (tmp_path / ".copy.99999999-abc").exists()
    for name in manifest.files:
        assert (tmp_path / "copy" / name).samefile(first / name)
    assert Bundle.open(tmp_path / "copy").id == manifest.id


def test_the_difference_names_models_settings_and_patches(tmp_path: Path) -> None:
    source, other = tiny_bundle_folder(), tmp_path / "other"
    shutil.copytree(other_bundles()[0], other)
    table = other / "library" / "patches.csv"
    lines = table.read_text().splitlines(keepends=True)
    old, new = lines[1].split(",")[1], "Renamed"
    lines[1] = lines[1].replace(old, new, 1)
    gone = lines.pop(3).split(",")[0]
    table.write_text("".join(lines))
    manifest = read_manifest(other / "manifest.json")
    manifest = replace(manifest, search=replace(manifest.search, candidates=7))
    (other / "manifest.json").write_bytes(replace(manifest, id=manifest.content_id()).to_json())
    found = difference(source, other)
    assert set(found.models) == {"generator", "timbre_encoder"}
    assert found.settings == {"search.candidates": (100, 7)}
    assert [patch.patch_id for patch in found.removed] == [gone]
    assert found.added == ()
    assert found.changed[lines[1].split(",")[0]][0] == "name"
    assert json.dumps(found.changed)
    same = difference(source, source)
    assert (same.models, same.settings, same.added, same.removed, same.changed) == ({}, {}, (), (), {})
