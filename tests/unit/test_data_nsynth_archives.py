"""`timbrel data fetch nsynth` from a real HTTP server: resumed, checked, unpacked whole or not at all."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.file_server import FileServer, serving
from support.nsynth_layout import archive_of, write_part

from timbrel import downloads
from timbrel.cli import main
from timbrel.errors import DataError
from timbrel.notes import nsynth_archives
from timbrel.notes.nsynth import PARTS, read_examples
from timbrel.notes.nsynth_archives import ARCHIVES, Archive, bytes_needed, fetch


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("published")
    for part, pitches in (("train", range(50, 60)), ("valid", (60,)), ("test", (61,))):
        write_part(folder, part, {f"organ_electronic_{part}": pitches})
    return {part: archive_of(folder, part) for part in PARTS}


@pytest.fixture
def server(contents: dict[str, bytes]) -> Iterator[FileServer]:
    with serving({f"{part}.tar.gz": content for part, content in contents.items()}) as running:
        yield running


def described(server: FileServer, contents: dict[str, bytes], **changes: Any) -> dict[str, Archive]:
    return {
        part: replace(
            ARCHIVES[part],
            url=server.url(f"{part}.tar.gz"),
            bytes=len(content),
            md5=hashlib.md5(content).hexdigest(),
            notes={"train": 10}.get(part, 1),
            **changes,
        )
        for part, content in contents.items()
    }


@pytest.fixture
def archives(server: FileServer, contents: dict[str, bytes]) -> dict[str, Archive]:
    return described(server, contents)


def test_all_parts_come_and_only_once(
    archives: dict[str, Archive], server: FileServer, tmp_path: Path
) -> None:
    told: list[str] = []
    fetch(tmp_path / "nsynth", archives=archives, progress=lambda what, done, total: told.append(what))
    assert sorted(path.name for path in (tmp_path / "nsynth").iterdir()) == sorted(
        f"nsynth-{part}" for part in PARTS
    )
    assert [len(read_examples(tmp_path / "nsynth", part)) for part in PARTS] == [10, 1, 1]
    assert all(each.wav.stat().st_size == 128_044 for each in read_examples(tmp_path / "nsynth", "train"))
    assert {"nsynth-train.jsonwav.tar.gz", "unpacking nsynth-train"} <= set(told)
    fetch(tmp_path / "nsynth", archives=archives)
    assert server.ranges == [None] * 3
    assert bytes_needed(tmp_path / "nsynth", archives=archives) == 0


def test_a_broken_download_goes_on_where_it_ended(
    archives: dict[str, Archive], server: FileServer, contents: dict[str, bytes], tmp_path: Path
) -> None:
    server.broken_at = 5_000
    with pytest.raises(DataError, match="goes on"):
        fetch(tmp_path, ["train"], archives=archives)
    assert [path.name for path in tmp_path.iterdir()] == ["nsynth-train.jsonwav.tar.gz.part"]
    fetch(tmp_path, ["train"], archives=archives, keep=True)
    assert server.ranges[0] is None
    assert re.fullmatch(r"bytes=\d+-", server.ranges[1] or "")
    assert (tmp_path / "nsynth-train.jsonwav.tar.gz").read_bytes() == contents["train"]
    assert len(read_examples(tmp_path, "train")) == 10


def test_an_archive_laid_there_by_hand_is_not_downloaded(
    archives: dict[str, Archive], server: FileServer, contents: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "nsynth-test.jsonwav.tar.gz").write_bytes(contents["test"])
    fetch(tmp_path, ["test"], archives=archives)
    assert len(read_examples(tmp_path, "test")) == 1
    assert server.ranges == []


def test_another_file_is_refused_and_does_not_stay(
    archives: dict[str, Archive], server: FileServer, contents: dict[str, bytes], tmp_path: Path
) -> None:
    server.files["valid.tar.gz"] = contents["valid"][:-1] + b"x"
    with pytest.raises(DataError, match=r"not the published file \(md5:"):
        fetch(tmp_path, ["valid"], archives=archives)
    assert list(tmp_path.iterdir()) == []


def test_room_is_looked_for_before_anything_comes(
    archives: dict[str, Archive], server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000))
    with pytest.raises(DataError, match=r"NSynth needs .* GB in .*, 0\.00 GB are free: make room") as caught:
        fetch(tmp_path, archives=archives)
    assert "\n" not in caught.value.message
    assert server.ranges == []


class Full(io.FileIO):
    """A file on a disk that is full after its first block."""

    def write(self, block: Any) -> int:
        if self.tell() > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(block[:2_000])


def test_a_disk_that_fills_up_meanwhile_is_said_to_be_full(
    archives: dict[str, Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "BLOCK", 2_000)
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda path, mode: Full(path, mode))
        with pytest.raises(DataError, match="is full after 2000 bytes: make room"):
            fetch(tmp_path, ["train"], archives=archives)
    assert (tmp_path / "nsynth-train.jsonwav.tar.gz.part").stat().st_size == 2_000
    fetch(tmp_path, ["train"], archives=archives)
    assert len(read_examples(tmp_path, "train")) == 10


def as_archive(content: bytes, notes: int = 1) -> Archive:
    return Archive(
        part="test",
        url="http://127.0.0.1:9/",
        bytes=len(content),
        md5=hashlib.md5(content).hexdigest(),
        notes=notes,
    )


def member(name: str, content: bytes, **changes: Any) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../outside", b"x")], "cannot be unpacked"),
        ([member("nsynth-test/audio", b"", type=tarfile.SYMTYPE, linkname="/etc")], "cannot be unpacked"),
        ([member("other/examples.json", b"{}")], "holds no nsynth-test/examples.json"),
        ([member("nsynth-test/examples.json", b"{")], "holds no nsynth-test/examples.json"),
        ([member("nsynth-test/examples.json", json.dumps({"a": {}}).encode())], "holds 0 of 1 notes"),
    ],
)
def test_archives_of_something_else_leave_nothing(
    members: list[tuple[tarfile.TarInfo, io.BytesIO]], message: str, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info, content in members:
            content.seek(0)
            tar.addfile(info, content)
    archive = as_archive(packed.getvalue())
    folder = tmp_path / "nsynth"
    folder.mkdir()
    (folder / archive.file).write_bytes(packed.getvalue())
    with pytest.raises(DataError, match=message):
        fetch(folder, ["test"], archives={"test": archive})
    assert [path.name for path in folder.iterdir()] == [archive.file]
    assert [path.name for path in tmp_path.iterdir()] == ["nsynth"]


def test_half_an_archive_never_looks_whole(contents: dict[str, bytes], tmp_path: Path) -> None:
    half = gzip.decompress(contents["train"])[:400_000]
    torn = gzip.compress(half)
    archive = replace(as_archive(torn, notes=10), part="train")
    (tmp_path / archive.file).write_bytes(torn)
    (tmp_path / ".nsynth-train.unpacking").mkdir()  # of a call that was killed
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch(tmp_path, ["train"], archives={"train": archive})
    assert [path.name for path in tmp_path.iterdir()] == [archive.file]


def test_what_is_published() -> None:
    """Sizes and notes are those that are generally known; all of it together needs what the help says."""
    assert sum(archive.bytes for archive in ARCHIVES.values()) == 25_233_566_634
    assert [ARCHIVES[part].notes for part in PARTS] == [289_205, 12_678, 4_096]
    assert all(re.fullmatch("[0-9a-f]{32}", archive.md5) for archive in ARCHIVES.values())
    assert round(bytes_needed(Path("none")) / 1e9) == 62


def test_the_command_tells_licence_sizes_and_folder(
    archives: dict[str, Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nsynth_archives, "ARCHIVES", archives)
    done = CliRunner().invoke(
        main, ["data", "fetch", "nsynth", "--folder", str(tmp_path), "--subset", "test"]
    )
    assert done.exit_code == 0, done.output
    assert "licence: CC BY 4.0" in done.stderr
    assert "nsynth-test: 1 notes, 0.00 GB to come" in done.stderr
    assert done.stdout.strip() == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["nsynth-test"]
