"""What only clients answer with: the engine's other results are in ``timbrel.engine.results``."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from timbrel.engine import sfz
from timbrel.errors import ProtocolError
from timbrel.files import atomic_write


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentArchive:
    """A place of the map for a sampler: ``data`` is a zip of the folder ``name``, laid out as ``engine.sfz`` says."""

    name: str
    data: bytes = field(repr=False)

    def files(self) -> dict[str, bytes]:
        """Every file by its path inside the folder. Raises ProtocolError for what is no such archive."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                inside = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
            raise ProtocolError(f"the instrument is no zip archive ({error}): ask for it again") from None
        folder = f"{self.name}/"
        if any(not path.startswith(folder) or ".." in path.split("/") for path in inside):
            raise ProtocolError(f"the instrument holds files outside {folder}: nothing was written")
        return {path.removeprefix(folder): data for path, data in inside.items()}

    def save(self, target: str | os.PathLike[str]) -> Path:
        """Write it: as a zip file where ``target`` ends in .zip, else unpacked into a new folder.

        Raises InputError where the folder is there already.
        """
        path = Path(target)
        if path.suffix == ".zip":
            with atomic_write(path) as handle:
                handle.write(self.data)
        else:
            sfz.write_folder(self.files(), path)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchFile:
    """A patch as its instrument reads it: a DX7 voice (.syx), or the description of a soundfont's preset (.json)."""

    filename: str
    media_type: str
    data: bytes = field(repr=False)
