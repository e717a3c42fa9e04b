"""The user's own banks: every .syx and .sf2 file in the ``banks/`` folder joins the library."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from timbrel.errors import DataError
from timbrel.notes.dx7 import PACKED_BYTES, read_sysex_file, to_packed
from timbrel.notes.families import family_of_name, family_of_program
from timbrel.notes.patches import Patch, dx7_patch, soundfont_patch
from timbrel.notes.soundfonts import DRUM_BANK, list_presets


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBanks:
    """Patches found, in the order of file names; and what was counted on the way.

    ``counts``: files_syx, files_sf2, files_unreadable, wrong_checksums, empty_voices, drum_presets.
    ``problems``: one line per file that could not be read.
    """

    patches: tuple[Patch, ...]
    counts: dict[str, int]
    problems: tuple[str, ...]


def read_user_banks(folder: Path) -> UserBanks:
    """Everything playable below ``folder``; an absent folder holds nothing. A bad file costs itself only."""
    patches: list[Patch] = []
    counts: Counter[str] = Counter()
    problems = []
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    for path in files:
        kind = path.suffix.lower()
        if kind not in (".syx", ".sf2"):
            continue
        counts[f"files_{kind[1:]}"] += 1
        try:
            found = _voices(path, counts) if kind == ".syx" else _presets(path, counts)
        except DataError as error:
            counts["files_unreadable"] += 1
            problems.append(error.message)
            continue
        patches += found
    return UserBanks(patches=tuple(patches), counts=dict(sorted(counts.items())), problems=tuple(problems))


def _voices(path: Path, counts: Counter[str]) -> list[Patch]:
    contents = read_sysex_file(path)
    counts["wrong_checksums"] += contents.wrong_checksums
    patches = []
    for voice in contents.voices:
        # Fillers: every operator mute. Rendering them would only report silence.
        if not any(op.output for op in voice.operators):
            counts["empty_voices"] += 1
            continue
        packed = to_packed(voice)
        assert len(packed) == PACKED_BYTES
        family = family_of_name(voice.name) or "synth_lead"
        patches.append(dx7_patch(packed, bank=path.name, family=family, split="library"))
    return patches


def _presets(path: Path, counts: Counter[str]) -> list[Patch]:
    patches = []
    for preset in list_presets(path):
        if preset.bank == DRUM_BANK:
            counts["drum_presets"] += 1
            continue
        named, programmed = family_of_name(preset.name), family_of_program(preset.program)
        family = (programmed or named) if preset.bank == 0 else (named or programmed)
        patches.append(soundfont_patch(path, preset, family=family or "synth_lead", split="library"))
    return patches
