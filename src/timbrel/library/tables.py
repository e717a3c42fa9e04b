"""The library's two tables: the patches, and their renders.

``patches.csv`` has one line per patch: what it is, where it lies on the timbre map, and its payload, from
which the patch file is made. ``renders.csv`` has one line per render; its line number is the row in the
vectors and in the index. Both are plain CSV with a header, UTF-8, floats in their shortest exact form, so
equal libraries give equal bytes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from timbrel.errors import BundleError

ENGINES = ("dx7", "soundfont")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch. ``x``, ``y``: its place on the timbre map.

    ``payload``: base64 of a packed DX7 voice, or of the JSON that names a soundfont's preset.
    """

    patch_id: str
    name: str
    bank: str
    family: str
    engine: str
    offset_semitones: float
    x: float
    y: float
    payload: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Render:
    """One note of one patch. ``key``: the MIDI key pressed; ``f0_midi``: what sounds, NaN where nothing has a
    pitch.
    """

    row: int
    patch_id: str
    note_id: str
    key: int
    velocity: int
    f0_midi: float
    f0_confidence: float


Record = TypeVar("Record", Patch, Render)


def write_table(records: Sequence[Record]) -> bytes:
    """The CSV bytes of patches or of renders."""
    names = [field.name for field in fields(records[0])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        writer.writerow([_cell(getattr(record, name)) for name in names])
    return text.getvalue().encode("utf-8")


def read_patches(path: Path) -> tuple[Patch, ...]:
    """Raises BundleError naming the file and the line."""
    patches = tuple(_read(path, Patch, _check_patch))
    if len({patch.patch_id for patch in patches}) != len(patches):
        raise BundleError(f"{path} names a patch twice; rebuild the library")
    return patches


def read_renders(path: Path, patches: Sequence[Patch]) -> tuple[Render, ...]:
    """Raises BundleError naming the file and the line, or the patch that has no render."""
    known = {patch.patch_id for patch in patches}

    def check(render: Render, index: int) -> str | None:
        if render.row != index:
            return f"row is {render.row} where {index} was due"
        if render.patch_id not in known:
            return f"no patch {render.patch_id}"
        if not (0 <= render.key <= 127 and 1 <= render.velocity <= 127):
            return "key or velocity is no MIDI number"
        if math.isinf(render.f0_midi):
            return "f0_midi is infinite"
        return None

    renders = tuple(_read(path, Render, check))
    silent = known - {render.patch_id for render in renders}
    if silent:
        raise BundleError(f"{path} has no render of {len(silent)} patches, {min(silent)} among them")
    return renders


def _check_patch(patch: Patch, index: int) -> str | None:
    if not patch.patch_id or not patch.payload:
        return "patch_id or payload is empty"
    if patch.engine not in ENGINES:
        return f"engine is {patch.engine!r}, not one of {', '.join(ENGINES)}"
    if not all(map(math.isfinite, (patch.x, patch.y, patch.offset_semitones))):
        return "x, y or offset_semitones is not finite"
    return None


def _read(path: Path, kind: type[Record], check: Callable[[Record, int], str | None]) -> Iterable[Record]:
    converters: dict[str, Callable[[str], Any]] = {
        field.name: _CONVERTERS[str(field.type)] for field in fields(kind)
    }
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BundleError(f"{path} cannot be read ({error}); rebuild the library") from error
    if not lines or lines[0] != list(converters):
        raise BundleError(f"{path} does not have the columns {', '.join(converters)}; rebuild the library")
    if len(lines) == 1:
        raise BundleError(f"{path} is empty; a library needs at least one line")
    for index, line in enumerate(lines[1:]):
        try:
            values = {name: converters[name](cell) for name, cell in zip(converters, line, strict=True)}
            record = kind(**values)
        except ValueError as error:
            raise BundleError(f"{path}, line {index + 2}: {error}") from error
        problem = check(record, index)
        if problem:
            raise BundleError(f"{path}, line {index + 2}: {problem}")
        yield record


def _cell(value: str | int | float) -> str:
    """Floats in their shortest exact form, NaN as an empty cell."""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)


def _float(cell: str) -> float:
    return float(cell) if cell else math.nan


# By a field's annotation.
_CONVERTERS: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": _float}
