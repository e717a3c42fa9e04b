"""A patch as the file that its instrument reads: a DX7 single-voice dump, or the name of a SoundFont preset."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import NamedTuple

from timbrel.errors import BundleError, DataError
from timbrel.library.tables import Patch
from timbrel.notes import dx7


class PatchFile(NamedTuple):
    """A file to hand out."""

    filename: str
    media_type: str
    data: bytes


def patch_file(patch: Patch) -> PatchFile:
    """The file of one patch.

    A DX7 voice is a system-exclusive single-voice dump (155 bytes of voice data) that the instrument and its
    emulators load. A SoundFont stays with its owner: its preset is described by file name, SHA-256, bank and
    program.

    Raises:
        BundleError: the payload is not what its engine says.
    """
    stem = f"{slug(patch.name)}-{patch.patch_id}"
    try:
        payload = base64.b64decode(patch.payload, validate=True)
        if patch.engine == "dx7":
            voice = dx7.write_voice(dx7.from_packed(payload))
            return PatchFile(f"{stem}.syx", "application/octet-stream", voice)
        preset = {"name": patch.name, **json.loads(payload)}
    except (binascii.Error, ValueError, TypeError, DataError) as error:
        raise BundleError(
            f"the payload of patch {patch.patch_id} is damaged; build the bundle again"
        ) from error
    return PatchFile(
        f"{stem}.json", "application/json", (json.dumps(preset, indent=2) + "\n").encode("utf-8")
    )


def slug(name: str) -> str:
    """A name as a part of a file name: lower-case ASCII letters and digits, hyphens between."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "patch"
