"""Patches: what can be loaded into a synthesiser and is found by its sound. Table format of data/patches."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from timbrel.errors import DataError
from timbrel.files import sha256_of
from timbrel.notes.dx7 import from_packed
from timbrel.notes.noteset import write_table
from timbrel.notes.render import RenderJob
from timbrel.notes.soundfonts import Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch. ``offset_semitones``: from the key to what sounds (nan until measured).

    ``payload`` is base64 of the packed DX7 voice (128 bytes), or of JSON with "soundfont" (file name), "sha256",
    "bank" and "program". ``sha256`` is that of the payload's bytes; ``patch_id`` is derived from what sounds
    (a voice without its name, a preset of a font with that content), so that it outlives a renamed file.
    """

    patch_id: str
    name: str
    bank: str
    family: str
    engine: str  # dx7 | soundfont
    split: str
    offset_semitones: float
    payload: str
    sha256: str

    @property
    def content(self) -> bytes:
        """The payload's bytes."""
        return base64.b64decode(self.payload)


COLUMNS = tuple(field.name for field in fields(Patch))


def dx7_patch(packed: bytes, *, bank: str, family: str, split: str) -> Patch:
    """A patch of a packed DX7 voice."""
    name = from_packed(packed).name.strip()
    return Patch(
        patch_id="dx7-" + hashlib.sha256(packed[:118]).hexdigest()[:12],
        name="".join(letter if letter.isprintable() else " " for letter in name).strip() or "untitled",
        bank=bank,
        family=family,
        engine="dx7",
        split=split,
        offset_semitones=float("nan"),
        payload=base64.b64encode(packed).decode(),
        sha256=hashlib.sha256(packed).hexdigest(),
    )


@lru_cache(maxsize=64)
def _font_hash(path: Path) -> str:
    return sha256_of(path)


def soundfont_patch(path: Path, preset: Preset, *, family: str, split: str) -> Patch:
    """A patch of a soundfont's preset. The font itself is not part of the payload: its hash is."""
    font_hash = _font_hash(path)
    identity = f"{font_hash}/{preset.bank}/{preset.program}"
    content = json.dumps(
        {"bank": preset.bank, "program": preset.program, "sha256": font_hash, "soundfont": path.name},
        sort_keys=True,
    ).encode()
    return Patch(
        patch_id="sf2-" + hashlib.sha256(identity.encode()).hexdigest()[:12],
        name=preset.name,
        bank=path.name,
        family=family,
        engine="soundfont",
        split=split,
        offset_semitones=float("nan"),
        payload=base64.b64encode(content).decode(),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def render_job(patch: Patch, notes: tuple[tuple[int, int], ...], *, fonts: Path | None = None) -> RenderJob:
    """The job that renders ``patch`` at ``notes`` (key, velocity); ``fonts``: folder that holds its soundfont."""
    if patch.engine == "dx7":
        return RenderJob(key=patch.patch_id, notes=notes, voice=patch.content)
    preset = json.loads(patch.content)
    found = sorted((fonts or Path()).rglob(preset["soundfont"]))
    path = next((each for each in found if _font_hash(each) == preset["sha256"]), None)
    if path is None:
        raise DataError(f"{preset['soundfont']} is not in {fonts}, or not the file it was: put it back")
    return RenderJob(
        key=patch.patch_id, notes=notes, font=path, bank=preset["bank"], program=preset["program"]
    )


def write_patches(path: Path, patches: Sequence[Patch]) -> None:
    """patches.csv, in the order given."""
    write_table(path, COLUMNS, (_line(patch) for patch in patches))


def _line(patch: Patch) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(patch, name) for name in COLUMNS}
    line["offset_semitones"] = f"{patch.offset_semitones:.3f}"
    return line


def _patch(line: dict[str, Any]) -> Patch:
    return Patch(**{**line, "offset_semitones": float(line["offset_semitones"])})


def read_patches(path: Path) -> tuple[Patch, ...]:
    """patches.csv. Raises DataError when it is missing or has other columns."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{path} has other columns than {', '.join(COLUMNS)}: run its stage again")
            return tuple(_patch(line) for line in reader)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): run the stage patches") from error
