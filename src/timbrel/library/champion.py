"""Which bundle is live: one small file, replaced whole, that everything else follows.

    <registry>/live/live.json     the champion's id, that of the one before, and every change so far
    <registry>/live/<id>/         whole bundles: the champion and the one before

``commit`` is the only step that changes what is live; whatever is killed before it or after it, the file names one
bundle whose folder is whole. A service that is not told of another bundle serves the champion; where nothing was ever
promoted there is no live.json, and it serves the bundle of the repository. The aliases of MLflow's registry are a
record that is brought up to date from this file (``timbrel.tracking.registry``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from timbrel.errors import BundleError, Unavailable
from timbrel.files import atomic_write, flush_folder, locked
from timbrel.library.bundle_copy import copy_whole
from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import read_manifest

FILE_NAME = "live.json"


class Change(BaseModel):
    """One promotion or rollback: ``bundle`` took the place of ``former``, at ``when`` (ISO 8601, UTC).

    ``worse``: what spoke against it, a sentence each; ``forced`` if it was done in spite of them, for ``reason``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    kind: Literal["promotion", "rollback"]
    bundle: str
    former: str | None
    when: str
    who: str
    forced: bool = False
    reason: str = ""
    worse: tuple[str, ...] = ()
    figures: dict[str, float] = {}


class Live(BaseModel):
    """What live.json says: ids of bundles, and how it came about, the oldest change first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: str
    previous: str | None = None
    changes: tuple[Change, ...] = ()


class Succession(BaseModel):
    """A change that is to be made in ``folder``: ``live`` where the champion is ``instead_of`` now."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    live: Live
    instead_of: str | None


def read(folder: Path) -> Live | None:
    """What is live; None where nothing was ever promoted. Raises BundleError if the file cannot be read."""
    path = folder / FILE_NAME
    try:
        return Live.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no such file"
        raise BundleError(
            f"{path} cannot be read ({reason}): restore it, or remove it to serve the repository's bundle"
        ) from None


def commit(change: Succession) -> None:
    """Make the change: from here on the new champion is what is live.

    Raises:
        BundleError: the champion's folder is not there.
        Unavailable: the champion is not the expected one any more, or there is no room; nothing is changed then.
    """
    bundle = change.folder / change.live.champion
    if read_manifest(bundle / MANIFEST_NAME).id != change.live.champion:
        raise BundleError(f"{bundle} holds another bundle than its name says: run the command again")
    try:
        with locked(change.folder / ".commit.lock"):
            now = read(change.folder)
            if (now.champion if now else None) != change.instead_of:
                raise Unavailable(
                    "another promotion came between: look at `timbrel bundle list`, then try again"
                )
            with atomic_write(change.folder / FILE_NAME) as handle:
                handle.write((change.live.model_dump_json(indent=1) + "\n").encode())
            # It is done: a disk that cannot say so now does not undo it.
            with suppress(OSError):
                flush_folder(change.folder)
    except OSError as error:
        raise Unavailable(
            f"{change.folder} cannot be written ({error.strerror}): make room there, then try again"
        ) from None


def place(bundle: Path, folder: Path) -> Path:
    """Put a whole bundle into the live folder, from one whose files nobody changes (they are linked to where the
    file system can); returns its path. Raises BundleError.
    """
    manifest = read_manifest(bundle / MANIFEST_NAME)
    target = folder / manifest.id
    if bundle != target:
        known = {entry.sha256: bundle / name for name, entry in manifest.files.items()}
        copy_whole(bundle, target, known=known)
    return target


def clear(folder: Path) -> None:
    """Remove the bundles that are neither the champion nor the one before, and what a killed process left."""
    live = read(folder)
    kept = {live.champion, live.previous} if live else set()
    # Those with a dot, which were left when somebody was killed, come first.
    for bundle in sorted(inner for inner in folder.iterdir() if inner.is_dir() and inner.name not in kept):
        gone = bundle
        if not bundle.name.startswith("."):
            # Under another name first: a folder that is named by an id is whole.
            gone = bundle.replace(bundle.with_name(f".gone-{bundle.name}"))
        shutil.rmtree(gone, ignore_errors=True)
    with locked(folder / ".commit.lock"):
        for part in folder.glob(f".{FILE_NAME}.*"):
            part.unlink()


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """One promotion at a time; the next one waits. The kernel lets go when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{folder} cannot be made ({error.strerror}): make room there") from None
    with locked(folder / ".change.lock"):
        yield
