"""NoteSet: the one format in which notes travel from stage to stage.

A folder with three files:

    notes.csv    one line per note, see :class:`Note`
    audio.npy    int16 [notes, 96000], 24 kHz mono, 4 s, peak at -1 dBFS; opened as a memory map
    report.json  counts, and what was dropped and why

Row ``i`` of the one is row ``i`` of the other. A folder is written beside its place and renamed into it,
so that a reader never sees half of one.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from timbrel.errors import DataError
from timbrel.notes.families import FAMILIES

SAMPLE_RATE = 24_000
NOTE_SECONDS = 4.0
HELD_SECONDS = 3.0
NOTE_SAMPLES = 96_000
PEAK = 10 ** (-1 / 20)  # -1 dBFS
SPLITS = ("train", "validation", "test", "library")
SOURCES = ("acoustic", "electronic", "synthetic", "soundfont", "dx7")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One note. ``pitch`` is the MIDI key, ``f0_midi`` what sounds, as measured (nan when unvoiced).

    In data/notes key and sound agree: an instrument that sounds whole octaves off its key was rendered at a moved
    key. In data/patches ``f0_midi`` of a render whose measurement contradicts the patch's steady offset (an octave
    slip) is key + offset, at confidence 0.
    """

    row: int
    note_id: str
    instrument: str
    name: str
    family: str
    source: str
    pitch: int
    velocity: int
    split: str
    f0_midi: float
    f0_confidence: float


COLUMNS = tuple(field.name for field in fields(Note))


def quantise(audio: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    """Float audio [96000] to int16 with its peak at -1 dBFS.

    Raises DataError when the length is wrong, a sample is not finite, or all are zero.
    """
    if audio.shape != (NOTE_SAMPLES,):
        raise DataError(f"a note holds {NOTE_SAMPLES} samples at 24 kHz, this one has shape {audio.shape}")
    if not np.isfinite(audio).all():
        raise DataError("a note holds NaN or infinity; drop it before writing")
    peak = float(np.abs(audio).max())
    if peak == 0.0:
        raise DataError("a note is digital silence; drop it before writing")
    return np.rint(audio.astype(np.float64) * (PEAK * 32767.0 / peak)).astype(np.int16)


class NoteSet:
    """A folder of notes, opened for reading."""

    def __init__(self, folder: Path, notes: tuple[Note, ...], audio: npt.NDArray[np.int16]) -> None:
        self.folder = folder
        self.notes = notes
        self.audio = audio

    @classmethod
    def open(cls, folder: Path) -> NoteSet:
        """Open ``folder``; raises DataError when a file is missing or the two do not fit together."""
        table, samples = folder / "notes.csv", folder / "audio.npy"
        if not table.is_file() or not samples.is_file():
            raise DataError(f"{folder} holds no notes.csv and audio.npy: run the stage that makes it")
        notes = _read_table(table)
        try:
            audio = np.load(samples, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{samples} is not a readable array ({error}): run its stage again") from error
        if audio.dtype != np.int16 or audio.shape != (len(notes), NOTE_SAMPLES):
            raise DataError(
                f"{samples} is {audio.dtype} {audio.shape}, {table.name} wants int16 {(len(notes), NOTE_SAMPLES)}"
            )
        return cls(folder, notes, audio)

    def __len__(self) -> int:
        return len(self.notes)

    def __iter__(self) -> Iterator[Note]:
        return iter(self.notes)

    @property
    def instruments(self) -> tuple[str, ...]:
        """Every instrument once, in order of first appearance."""
        return tuple(dict.fromkeys(note.instrument for note in self.notes))

    def select(
        self,
        *,
        split: str | Collection[str] | None = None,
        family: str | None = None,
        source: str | None = None,
        instrument: str | None = None,
        pitch: int | None = None,
        velocity: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """Rows [n] of the notes that meet every condition given."""
        splits = (split,) if isinstance(split, str) else split
        rows = [
            note.row
            for note in self.notes
            if (splits is None or note.split in splits)
            and (family is None or note.family == family)
            and (source is None or note.source == source)
            and (instrument is None or note.instrument == instrument)
            and (pitch is None or note.pitch == pitch)
            and (velocity is None or note.velocity == velocity)
        ]
        return np.asarray(rows, dtype=np.int64)

    def float_audio(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Audio of ``rows`` as float32 [n, 96000] in -1..1."""
        return np.asarray(self.audio[np.asarray(rows)], dtype=np.float32) / np.float32(32768.0)

    @property
    def report(self) -> dict[str, Any]:
        """What the stage counted."""
        path = self.folder / "report.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}


def _read_table(path: Path) -> tuple[Note, ...]:
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{path} has other columns than {', '.join(COLUMNS)}: run its stage again")
        notes = []
        for index, line in enumerate(reader):
            try:
                note = Note(
                    row=int(line["row"]),
                    note_id=line["note_id"],
                    instrument=line["instrument"],
                    name=line["name"],
                    family=line["family"],
                    source=line["source"],
                    pitch=int(line["pitch"]),
                    velocity=int(line["velocity"]),
                    split=line["split"],
                    f0_midi=float(line["f0_midi"] or "nan"),
                    f0_confidence=float(line["f0_confidence"] or "nan"),
                )
            except (TypeError, ValueError) as error:
                raise DataError(f"{path} line {index + 2}: {error}") from error
            if note.row != index:
                raise DataError(f"{path} line {index + 2}: row {note.row} out of order, expected {index}")
            notes.append(note)
    return tuple(notes)


class NoteSetWriter:
    """Writes a NoteSet; the folder appears, complete, when the ``with`` block ends without an error."""

    def __init__(self, folder: Path) -> None:
        self._target = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        self._notes: list[Note] = []
        self._audio = (self._folder / "audio.npy").open("w+b")
        self._write_header(0)
        self._header_bytes = self._audio.tell()
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def _write_header(self, notes: int) -> None:
        header = {"descr": "<i2", "fortran_order": False, "shape": (notes, NOTE_SAMPLES)}
        np.lib.format.write_array_header_1_0(self._audio, header)

    def add(self, note: Note, audio: npt.NDArray[Any]) -> Note:
        """Append a note; its ``row`` is set here. ``audio`` [96000]: float (normalised here) or finished int16."""
        if note.family not in FAMILIES:
            raise DataError(f"{note.note_id}: {note.family!r} is none of {', '.join(FAMILIES)}")
        if note.split not in SPLITS or note.source not in SOURCES:
            raise DataError(f"{note.note_id}: split {note.split!r} or source {note.source!r} is unknown")
        samples = audio if audio.dtype == np.int16 else quantise(audio)
        if samples.shape != (NOTE_SAMPLES,):
            raise DataError(f"{note.note_id}: a note holds {NOTE_SAMPLES} samples, not {samples.shape}")
        placed = replace(note, row=len(self._notes))
        self._notes.append(placed)
        self._audio.write(samples.astype("<i2", copy=False).tobytes())
        return placed

    def set_splits(self, splits: Mapping[str, str]) -> None:
        """Put every note into the split of its instrument: known only when all that is kept has been seen."""
        self._notes = [replace(note, split=splits.get(note.instrument, note.split)) for note in self._notes]
        unknown = {note.split for note in self._notes} - set(SPLITS)
        if unknown:
            raise DataError(f"unknown splits {sorted(unknown)}; there are {', '.join(SPLITS)}")

    def path(self, name: str) -> Path:
        """Where a further file of this folder is to be written."""
        return self._folder / name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._audio.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        self._audio.seek(0)
        self._write_header(len(self._notes))
        # numpy pads its header so that the first axis may grow in place; were that to change, rows would shift.
        if self._audio.tell() != self._header_bytes:
            raise DataError("numpy's array header changed its size; notes cannot be written in a stream")
        self._audio.close()
        write_table(self._folder / "notes.csv", COLUMNS, (_line(note) for note in self._notes))
        (self._folder / "report.json").write_text(json.dumps(self.report, indent=2, sort_keys=True) + "\n")
        publish_folder(self._folder, self._target)


def _line(note: Note) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(note, name) for name in COLUMNS}
    for name in ("f0_midi", "f0_confidence"):
        line[name] = "" if math.isnan(line[name]) else f"{line[name]:.4f}"
    return line


def write_table(path: Path, columns: tuple[str, ...], lines: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file with Unix line ends."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def publish_folder(built: Path, target: Path) -> None:
    """Rename ``built`` to ``target``; an older ``target`` is moved aside first and removed after."""
    built.chmod(0o755)
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old / target.name)
    built.rename(target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
