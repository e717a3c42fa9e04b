"""NSynth's published archives: where they are, that they came whole, and how they are unpacked.

    <folder>/nsynth-train.jsonwav.tar.gz      until it is unpacked
    <folder>/.nsynth-train.unpacking/         while it is being unpacked
    <folder>/nsynth-train/                    only ever whole

Sizes and MD5 digests are those that the publisher's storage states of its objects; the HEAR benchmark
(hear-preprocess, nsynth_pitch) holds its downloads to the same digests. The publisher gives no SHA-256.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timbrel.downloads import Progress, Remote, download, need_room
from timbrel.errors import DataError
from timbrel.notes.nsynth import PARTS

LICENCE = (
    "CC BY 4.0 (J. Engel et al., Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders, 2017)"
)
_ADDRESS = "http://download.magenta.tensorflow.org/datasets/nsynth"
# 64,000 16-bit samples and a header, and what examples.json says of the note; a file takes whole blocks of 4 KiB.
_NOTE_BYTES = 131_072 + 1_024
_TOLD_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One part of NSynth as it is published. ``notes``: how many are in it; ``md5``: hex digits."""

    part: str
    url: str
    bytes: int
    md5: str
    notes: int

    @property
    def file(self) -> str:
        return f"nsynth-{self.part}.jsonwav.tar.gz"

    @property
    def unpacked_bytes(self) -> int:
        """What the unpacked folder takes, about."""
        return self.notes * _NOTE_BYTES


ARCHIVES: Mapping[str, Archive] = {
    part: Archive(part=part, url=f"{_ADDRESS}/nsynth-{part}.jsonwav.tar.gz", bytes=size, md5=md5, notes=notes)
    for part, size, md5, notes in (
        ("train", 23_815_298_079, "fde6665a93865503ba598b9fac388660", 289_205),
        ("valid", 1_068_767_009, "87e94a00a19b6dbc99cf6d4c0c0cae87", 12_678),
        ("test", 349_501_546, "5e6f8719bf7e16ad0a00d518b78af77d", 4_096),
    )
}


def is_there(folder: Path, part: str) -> bool:
    """Whether a part lies unpacked in ``folder``."""
    return (folder / f"nsynth-{part}" / "examples.json").is_file()


def bytes_needed(
    folder: Path, parts: Sequence[str] = PARTS, archives: Mapping[str, Archive] = ARCHIVES
) -> int:
    """The most that the disk of ``folder`` must have free for ``fetch``: an archive goes as soon as it is unpacked."""
    most = kept = 0
    for archive in (archives[part] for part in parts if not is_there(folder, part)):
        most = max(most, kept + archive.bytes + archive.unpacked_bytes)
        kept += archive.unpacked_bytes
    return most


def fetch(
    folder: Path,
    parts: Sequence[str] = PARTS,
    *,
    archives: Mapping[str, Archive] = ARCHIVES,
    keep: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Download and unpack the ``parts`` that are not in ``folder`` yet; an archive that lies there is not downloaded.

    ``keep``: the archives stay. Raises DataError as ``downloads.download``, when the disk has no room (before any
    work), and when an archive does not hold what NSynth publishes. What had come is gone on from by the next call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [archives[part] for part in parts if not is_there(folder, part)]
    here = sum(
        path.stat().st_size
        for archive in wanted
        for path in (folder / archive.file, folder / f"{archive.file}.part")
        if path.is_file()
    )
    need_room(folder, bytes_needed(folder, parts, archives) - here, what="NSynth")
    for archive in wanted:
        remote = Remote(
            name=archive.file,
            url=archive.url,
            digest=f"md5:{archive.md5}",
            bytes=archive.bytes,
            by_hand=f"lay {archive.file} into {folder}",
        )
        path = download(remote, folder / archive.file, progress)
        unpack(path, folder, archive, progress)
        if not keep:
            path.unlink()


def unpack(path: Path, folder: Path, archive: Archive, progress: Progress) -> None:
    """``path`` to ``<folder>/nsynth-<part>``, which appears when all of it is there and on disk.

    Raises DataError when the archive is torn, reaches out of its folder, or lacks notes that its table names.
    """
    name = f"nsynth-{archive.part}"
    target, aside = folder / name, folder / f".{name}.unpacking"
    if target.exists():
        raise DataError(
            f"{target} is there and has no examples.json: remove it, then run the same command again"
        )
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with tarfile.open(path, "r:gz") as tar:
            # "data" refuses links and names that lead out of the folder, devices, and odd permissions.
            tar.extractall(aside, members=_told(tar, name, archive.notes, progress), filter="data")
        _check(aside / name, archive)
        os.sync()
        os.replace(aside / name, target)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise DataError(
                f"the disk of {folder} is full: make room, the same command unpacks {path.name} again"
            ) from error
        raise DataError(
            f"{path} cannot be unpacked ({error}): remove it, then run the same command again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _told(
    tar: tarfile.TarFile, name: str, notes: int, progress: Callable[[str, int, int], None]
) -> Iterator[tarfile.TarInfo]:
    for done, member in enumerate(tar):
        if done % _TOLD_EVERY == 0:
            progress(f"unpacking {name}", min(done, notes), notes)
        yield member


def _check(folder: Path, archive: Archive) -> None:
    """Raises DataError unless every note of the table has its file, and there are as many as were published."""
    try:
        names = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{archive.file} holds no {folder.name}/examples.json: it is not NSynth's") from error
    there = {path.stem for path in (folder / "audio").glob("*.wav")}
    if len(names) != archive.notes or not there.issuperset(names):
        raise DataError(
            f"{archive.file} holds {len(there.intersection(names))} of {archive.notes} notes: it is not NSynth's"
        )
