"""Whole files or none: atomic writes and content hashes."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; on a clean exit it is flushed to disk and renamed over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)
    try:
        with handle:
            yield handle  # type: ignore[misc]
            handle.flush()
            os.fsync(handle.fileno())
        # NamedTemporaryFile makes private files; what is published is readable like any other.
        os.chmod(handle.name, mode)
        os.replace(handle.name, path)
    except BaseException:
        Path(handle.name).unlink(missing_ok=True)
        raise


def put_folder(part: Path, folder: Path) -> None:
    """Put the folder ``part`` in the place of ``folder``, which lies at ``part`` afterwards if there was one.

    The two are exchanged in one step where the file system can; elsewhere ``folder`` is gone for a moment, and comes
    back if its successor cannot be put in its place.
    """
    if not folder.exists():
        os.replace(part, folder)
    elif not _exchanged(part, folder):
        aside = part.with_name(f"{part.name}.former")
        os.replace(folder, aside)
        try:
            os.replace(part, folder)
        except OSError:
            os.replace(aside, folder)
            raise
        os.replace(aside, part)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths by Linux's renameat2; False where that is not possible."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def flush_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power, as ``fsync`` has a file's contents."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the kernel drops it when the process ends, however it ends."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
