"""A bundle copied whole: the new folder is there with every file checked, or is not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from timbrel.errors import BundleError
from timbrel.files import flush_folder, put_folder, sha256_of
from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import Manifest, read_manifest


def copy_whole(source: Path, target: Path, *, known: Mapping[str, Path] | None = None) -> Manifest:
    """Copy the bundle in ``source`` to ``target``; what was there is replaced at the very end, in one step.

    ``known``: files that nobody ever changes, by their SHA-256: they are linked to instead of copied.

    Raises BundleError: the bundle is not whole, or there is no room; what was at ``target`` is as it was.
    """
    manifest = read_manifest(source / MANIFEST_NAME)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        prefix = f".{target.name}.{os.getpid()}-"
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as temporary:
            part = Path(temporary) / "bundle"
            for name, entry in manifest.files.items():
                _put(source / name, part / name, (known or {}).get(entry.sha256))
                if sha256_of(part / name) != entry.sha256:
                    raise BundleError(
                        f"{source / name} does not match its hash in the manifest; restore the bundle first"
                    )
            _put(source / MANIFEST_NAME, part / MANIFEST_NAME, None)
            for folder in {path.parent for path in part.rglob("*")}:
                flush_folder(folder)
            put_folder(part, target)
            flush_folder(target.parent)
    except OSError as error:
        where = error.filename if isinstance(error, FileNotFoundError) else None
        raise BundleError(
            f"{where} is missing; restore the bundle first"
            if where
            else f"the bundle cannot be written to {target} ({error.strerror or error}): make room there; what was "
            "there is as it was"
        ) from None
    return manifest


def _put(source: Path, target: Path, known: Path | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if known is not None:
        try:
            os.link(known, target)
            return
        except OSError:
            pass  # another disk, or a file system without links
    shutil.copyfile(source, target)
    with target.open("rb") as handle:
        os.fsync(handle.fileno())


def _remove_leftovers(target: Path) -> None:
    """Remove what a process that was killed left beside ``target``."""
    for folder in target.parent.glob(f".{target.name}.*-*"):
        owner = folder.name.removeprefix(f".{target.name}.").partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)
