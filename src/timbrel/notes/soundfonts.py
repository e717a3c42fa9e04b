"""SoundFont 2 files: their presets, listed from the file itself, and notes rendered with TinySoundFont.

Preset headers are read from the RIFF structure (SoundFont 2.04 specification, section 7.2: ``pdta``/``phdr``,
38 bytes a record), because the player does not list them.
"""

from __future__ import annotations

import glob
import importlib.util
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timbrel.errors import DataError

DRUM_BANK = 128
_RECORD = struct.Struct("<20sHHHIII")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Preset:
    """One preset of a soundfont; ``program`` 0-127 as MIDI sends it."""

    bank: int
    program: int
    name: str


def general_midi_font() -> Path:
    """The General MIDI soundfont that the pretty_midi package carries (found without importing it)."""
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or spec.origin is None:
        raise DataError(
            "pretty_midi, whose soundfont the notes come from, is missing: pip install pretty_midi"
        )
    path = Path(spec.origin).parent / "TimGM6mb.sf2"
    if not path.is_file():
        raise DataError(
            "this version of pretty_midi carries no TimGM6mb.sf2: install the locked requirements"
        )
    return path


def find_fonts(patterns: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Files that match the paths or globs, sorted, each once; and the patterns that match nothing."""
    found: dict[Path, None] = {}
    absent = []
    for pattern in patterns:
        matches = sorted(path for path in glob.glob(str(Path(pattern).expanduser())) if Path(path).is_file())
        if not matches:
            absent.append(pattern)
        found.update(dict.fromkeys(Path(path) for path in matches))
    return list(found), absent


def list_presets(path: Path) -> tuple[Preset, ...]:
    """Presets in order of bank and program. Raises DataError when the file is no soundfont."""
    try:
        with path.open("rb") as handle:
            headers = _preset_headers(handle)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if headers is None or len(headers) % _RECORD.size or not headers:
        raise DataError(f"{path} is not a SoundFont 2 file with a preset list")
    presets = []
    # The last record is the terminal "EOP".
    for offset in range(0, len(headers) - _RECORD.size, _RECORD.size):
        raw, program, bank, *_ = _RECORD.unpack_from(headers, offset)
        name = raw.split(b"\0")[0].decode("latin-1").strip()
        if bank <= DRUM_BANK and program < 128:
            presets.append(Preset(bank=bank, program=program, name=name or f"Preset {bank}:{program}"))
    return tuple(sorted(presets))


def _preset_headers(handle: Any) -> bytes | None:
    """Body of the ``phdr`` chunk of RIFF/sfbk, or None."""
    riff, _, kind = struct.unpack("<4sI4s", handle.read(12).ljust(12, b"\0"))
    if riff != b"RIFF" or kind != b"sfbk":
        return None
    while len(head := handle.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"LIST":
            if handle.read(4) == b"pdta":
                continue  # its sub-chunks follow
            size -= 4
        if name == b"phdr":
            body: bytes = handle.read(size)
            return body if len(body) == size else None
        handle.seek(size + (size & 1), 1)
    return None


FADE_SECONDS = 0.05


class SoundfontEngine:
    """Renders notes of one soundfont at 44.1 kHz; one instance belongs to one process."""

    sample_rate = 44_100

    def __init__(self, path: Path) -> None:
        # Only the player's core is imported: its sequencer and live playing need more than rendering does.
        from tinysoundfont import _tinysoundfont as core

        try:
            self._font = core.SoundFont(path.read_bytes())
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path} is not a playable soundfont ({error})") from error
        self._font.set_output(core.OutputMode.Mono, self.sample_rate, 0.0)

    def render(
        self, *, bank: int, program: int, key: int, velocity: int, held: float, seconds: float
    ) -> npt.NDArray[np.float32]:
        """One note, float32 [seconds * 44100]; raises DataError when there is no such preset."""
        font = self._font
        font.reset()
        # A reset fades the voices of the note before within 10 ms instead of ending them: let that pass unheard.
        self._samples(FADE_SECONDS)
        try:
            font.channel_set_bank(0, bank)
            font.channel_set_preset_number(0, program, False)
        except RuntimeError as error:
            raise DataError(f"the soundfont has no preset {bank}:{program}") from error
        font.channel_note_on(0, key, velocity / 127.0)
        attack = self._samples(held)
        font.channel_note_off(0, key)
        return np.concatenate([attack, self._samples(seconds - held)])

    def _samples(self, seconds: float) -> npt.NDArray[np.float32]:
        buffer = bytearray(4 * round(seconds * self.sample_rate))
        self._font.render(memoryview(buffer), False)
        return np.frombuffer(buffer, dtype=np.float32)
