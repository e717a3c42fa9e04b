"""Puts the bundle that a pod is to serve into the volume of all pods, checks it, and points /current/bundle at it.

    BUNDLE_ID    its id, as bundle/manifest.json says; a folder of that name in /bundles is it
    BUNDLE_URL   a .tar.gz of the bundle's folder: https://…; only asked if it is not there
    both empty   the bundle in the image

A folder in /bundles is whole or not there: it is written under another name, flushed and renamed. Pods that start at
the same time may all write it; the first rename counts. Nothing of a bundle is executed, and every file is compared
with its hash in the manifest, whose own hash is the id.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from pathlib import Path

from timbrel.errors import BundleError, TimbrelError
from timbrel.library.bundle import Bundle
from timbrel.settings import ROOT

LONGEST_SECONDS = 60
LARGEST_BYTES = 20 * 2**30


def main(bundles: Path, current: Path, url: str, wanted: str) -> None:
    if url and not wanted:
        raise BundleError("BUNDLE_URL needs BUNDLE_ID: what comes from elsewhere is known by its content")
    source = None if wanted else ROOT / "bundle"
    name = wanted or checked(ROOT / "bundle")
    folder = bundles / name
    if not folder.is_dir():
        if wanted and not url:
            raise BundleError(
                f"bundle {wanted} is not in the volume, and BUNDLE_URL does not say where it is"
            )
        with tempfile.TemporaryDirectory(dir=bundles, prefix=".fetch-") as temporary:
            part = Path(temporary) / "bundle"
            if source is not None:
                shutil.copytree(source, part)
            else:
                part = downloaded(url, Path(temporary))
            found = checked(part)
            if found != name:
                raise BundleError(f"{url} holds bundle {found}, and {name} is wanted")
            os.sync()
            try:
                os.rename(part, folder)
            except OSError:
                if not folder.is_dir():  # another pod was first
                    raise
    if checked(folder) != name:
        raise BundleError(f"{folder} holds another bundle than its name says: remove it")
    link = current / "bundle"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    print(f"bundle {name} is whole", flush=True)


def checked(folder: Path) -> str:
    """The id of a bundle whose files are all as its manifest says. Raises BundleError."""
    bundle = Bundle.open(folder)
    try:
        return bundle.id
    finally:
        bundle.close()


def downloaded(url: str, folder: Path) -> Path:
    """The folder with manifest.json in the archive at ``url``, unpacked below ``folder``."""
    request = urllib.request.Request(url, headers={"user-agent": "timbrel"})
    with (
        urllib.request.urlopen(request, timeout=LONGEST_SECONDS) as answer,
        tarfile.open(fileobj=answer, mode="r|gz") as archive,
    ):
        left = LARGEST_BYTES
        for member in archive:
            left -= member.size
            if left < 0:
                raise BundleError(f"{url} holds more than {LARGEST_BYTES >> 30} GiB: no bundle is so large")
            # No links, no devices, nothing outside the folder.
            archive.extract(member, folder / "unpacked", filter="data")
    for manifest in sorted((folder / "unpacked").glob("**/manifest.json")):
        return manifest.parent
    raise BundleError(f"{url} holds no bundle: it has no manifest.json")


if __name__ == "__main__":
    try:
        main(
            Path("/bundles"),
            Path("/current"),
            os.environ.get("BUNDLE_URL", ""),
            os.environ.get("BUNDLE_ID", ""),
        )
    except (TimbrelError, OSError, EOFError, tarfile.TarError, zlib.error) as error:
        sys.exit(f"{type(error).__name__}: {error}")
