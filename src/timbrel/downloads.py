"""Large files from public addresses: whole, the right ones, and going on where a broken download ended.

<file>.part   what has come so far; the next call asks for the rest (HTTP Range)
<file>        only ever the whole file, with the digest that was promised
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timbrel.errors import DataError

BLOCK = 1 << 18
TIMEOUT_SECONDS = 30.0
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One file. ``digest``: ``sha256:`` or ``md5:`` and the hex digits, or the first of them where no more are known.

    ``name`` is for progress; ``bytes`` its size where that is known; ``by_hand``: what to do instead of downloading,
    to be read after "or".
    """

    name: str
    url: str
    digest: str
    by_hand: str
    bytes: int | None = None

    def is_whole(self, path: Path) -> bool:
        """Whether the file there has the digest."""
        algorithm, _, digits = self.digest.partition(":")
        if not path.is_file() or self.bytes not in (None, path.stat().st_size):
            return False
        with path.open("rb") as handle:
            # Against accidents: MD5 where that is what the publisher tells.
            return hashlib.file_digest(handle, algorithm).hexdigest().startswith(digits)


def download(remote: Remote, target: Path, progress: Progress = lambda what, done, total: None) -> Path:
    """Bring ``remote`` to ``target`` and return that; a file that is there and whole is left as it is.

    Raises DataError when the address cannot be reached, when the download ends early, when what came is another file,
    and when the disk has no room for it: known beforehand where ``remote.bytes`` is.
    """
    if remote.is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if remote.bytes is not None:
        need_room(target.parent, remote.bytes - _size(part), what=target.name)
    _receive(remote, part, progress)
    if not remote.is_whole(part):
        part.unlink()
        raise DataError(f"what {remote.url} sent is not the published file ({remote.digest}): try again")
    os.chmod(part, 0o644)
    os.replace(part, target)
    return target


def need_room(folder: Path, needed: int, *, what: str) -> None:
    """Raises DataError unless ``needed`` bytes are free where ``folder``, which exists, lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{what} needs {gigabytes(needed)} in {folder}, {gigabytes(free)} are free: make room, or name a folder "
            "on another disk"
        )


def gigabytes(count: int) -> str:
    """``1.07 GB``: bytes as people read them."""
    return f"{count / 1e9:.2f} GB"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(remote: Remote, part: Path, progress: Progress) -> None:
    have = _size(part)
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status != http.client.PARTIAL_CONTENT:
                have = 0  # from the start: this server does not go on
            total = have + int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if have else "wb") as handle:
                while block := answer.read(BLOCK):
                    handle.write(block)
                    have += len(block)
                    progress(remote.name, have, total)
                handle.flush()
                os.fsync(handle.fileno())
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it had come
        raise DataError(f"{remote.url} answered {error.code} {error.reason}: try again later") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise DataError(
                f"the disk of {part.parent} is full after {have} bytes: make room, the same command goes on from there"
            ) from error
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{remote.url} broke off ({reason}): the same command goes on where it ended, or {remote.by_hand}"
        ) from error
    if have < total:
        raise DataError(f"{remote.url} ended at {have} of {total} bytes: the same command goes on from there")
