"""Fetching published weights from a real HTTP server: whole or not at all, and going on after a break."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.file_server import FileServer, serving

from timbrel import published
from timbrel.cli import main
from timbrel.downloads import BLOCK
from timbrel.errors import DataError, NotFound
from timbrel.published import CATALOGUE, Published, fetch, find

CONTENT = np.random.default_rng(0).bytes(3 * BLOCK + 77)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"weights.pt": CONTENT}) as running:
        yield running


@pytest.fixture
def entry(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Published:
    made = Published(
        name="ours",
        file="weights.pt",
        url=server.url("weights.pt"),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="MIT",
        about="a test",
    )
    monkeypatch.setitem(CATALOGUE, "ours", made)
    return made


def test_a_file_comes_whole_and_only_once(server: FileServer, entry: Published, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = fetch(entry, tmp_path / "new" / "folder", lambda *progress: told.append(progress))
    assert path.read_bytes() == CONTENT
    assert told[-1] == ("ours", len(CONTENT), len(CONTENT))
    assert fetch(entry, path.parent) == path
    assert server.ranges == [None]
    assert [each.name for each in path.parent.iterdir()] == ["weights.pt"]


def test_a_broken_download_goes_on_where_it_ended(
    server: FileServer, entry: Published, tmp_path: Path
) -> None:
    server.broken_at = BLOCK
    with pytest.raises(DataError, match="the same command goes on"):
        fetch(entry, tmp_path)
    assert not (tmp_path / "weights.pt").exists()
    have = (tmp_path / "weights.pt.part").stat().st_size
    assert 0 < have <= BLOCK
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={have}-"]


def test_a_server_that_cannot_go_on_starts_again(
    server: FileServer, entry: Published, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt.part").write_bytes(CONTENT[:1_000])
    server.goes_on = False
    assert fetch(entry, tmp_path).read_bytes() == CONTENT


def test_a_part_that_was_whole_is_taken(server: FileServer, entry: Published, tmp_path: Path) -> None:
    (tmp_path / "weights.pt.part").write_bytes(CONTENT)
    assert fetch(entry, tmp_path).read_bytes() == CONTENT
    assert not (tmp_path / "weights.pt.part").exists()


def test_another_file_is_refused_and_does_not_stay(
    server: FileServer, entry: Published, tmp_path: Path
) -> None:
    server.files["weights.pt"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match="not the published file"):
        fetch(entry, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_addresses_are_told_in_one_line(entry: Published, tmp_path: Path) -> None:
    missing = replace(entry, url=entry.url.replace("weights.pt", "gone.pt"))
    with pytest.raises(DataError, match="answered 404"):
        fetch(missing, tmp_path)
    closed = replace(entry, url="http://127.0.0.1:9/weights.pt")
    with pytest.raises(DataError, match="TIMBREL_WEIGHTS") as caught:
        fetch(closed, tmp_path)
    assert "\n" not in caught.value.message


def test_files_are_found_where_they_were_named(
    entry: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    with pytest.raises(DataError, match=r"timbrel weights fetch ours.*TIMBREL_WEIGHTS"):
        find("ours")
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    assert find("ours") == tmp_path / "weights.pt"
    (tmp_path / "weights.pt").write_bytes(b"torn")
    with pytest.raises(DataError, match="not the published file"):
        find("ours")
    with pytest.raises(NotFound, match="efficientat-mn04"):
        find("nothing")
    monkeypatch.delenv("TIMBREL_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert published.cache_folder() == tmp_path / "timbrel" / "weights"


def test_an_unpacked_file_does_as_well(
    entry: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    unpacked = replace(entry, unpacked=("weights", hashlib.sha256(b"unpacked").hexdigest()))
    monkeypatch.setitem(CATALOGUE, "ours", unpacked)
    (tmp_path / "weights").write_bytes(b"unpacked")
    assert find("ours") == tmp_path / "weights"
    (tmp_path / "weights").write_bytes(b"torn")
    with pytest.raises(DataError, match="weights is not the published file"):
        find("ours")
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    assert find("ours") == tmp_path / "weights.pt"


def test_every_hash_is_one_and_every_address_ends_in_a_file() -> None:
    for each in CATALOGUE.values():
        digests = [each.sha256, *(each.unpacked or ())[1:]]
        assert all(re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", digest) for digest in digests), each.name
        assert re.fullmatch(r"https://[^?#]+\.(pt|th|gz|json|txt)", each.url), each.name


def test_the_command_tells_the_licence_and_the_path(
    entry: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    runner = CliRunner()
    done = runner.invoke(main, ["weights", "fetch", "ours"])
    assert done.exit_code == 0
    assert "licence: MIT" in done.stderr
    assert done.stdout.strip() == str(tmp_path / "weights.pt")
    shown = runner.invoke(main, ["weights", "list"]).stdout.splitlines()
    assert next(line for line in shown if line.startswith("ours")).split()[1] == "here"
    refused = runner.invoke(main, ["weights", "fetch", "nothing"])
    assert refused.exit_code == 2
    assert "no weights are called 'nothing'" in refused.stderr
