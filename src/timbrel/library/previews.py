"""Previews: one short MP3 per patch, in one uncompressed ZIP.

MP3 is compressed already, so the ZIP stores; its entries carry one fixed date, so equal audio gives equal
bytes.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from timbrel.errors import BundleError, NotFound
from timbrel.files import atomic_write

MEDIA_TYPE = "audio/mpeg"
# The least date that a ZIP entry can have.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# libsndfile's scale for MPEG-2 layer III at 24 kHz, constant rate: 0.8 is 40 kbit/s, 15 kB for 3 s.
_COMPRESSION = 0.8
_FADE_SECONDS = 0.25
# An MP3 starts some 1,100 samples late and ends where the input did: without this the fade's end would be cut off.
_DELAY = np.zeros(1_200, dtype=np.float32)


def encode(audio: np.ndarray, sample_rate: int, *, seconds: float) -> bytes:
    """The first ``seconds`` of ``audio`` float [n], faded out at the end, as an MP3."""
    clip = np.array(audio[: round(seconds * sample_rate)], dtype=np.float32)
    fade = min(len(clip), round(_FADE_SECONDS * sample_rate))
    if fade:
        clip[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.concatenate([clip, _DELAY]), sample_rate, format="MP3", subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT", compression_level=_COMPRESSION,
    )  # fmt: skip
    return buffer.getvalue()


def write_previews(path: Path, previews: Iterable[tuple[str, bytes]]) -> None:
    """Write (patch id, MP3) pairs in the order given."""
    with atomic_write(path) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
        for patch_id, data in previews:
            entry = zipfile.ZipInfo(_member(patch_id), date_time=_EPOCH)
            entry.create_system = 3  # Unix everywhere: the byte is part of the file
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)


class Previews:
    """Reads previews from the ZIP; thread-safe."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path} cannot be read ({error}); rebuild the bundle") from error
        self._lock = threading.Lock()
        self.patch_ids = frozenset(name.removesuffix(".mp3") for name in self._archive.namelist())

    def read(self, patch_id: str) -> bytes:
        """The MP3 of one patch. Raises NotFound."""
        if patch_id not in self.patch_ids:
            raise NotFound(f"there is no preview of patch {patch_id!r}; take a patch_id from a search")
        with self._lock:
            return self._archive.read(_member(patch_id))

    def close(self) -> None:
        self._archive.close()


def _member(patch_id: str) -> str:
    return f"{patch_id}.mp3"
