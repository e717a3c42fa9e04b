"""NSynth's eleven families, and how General MIDI programs, FM templates and patch names map to them."""

from __future__ import annotations

import re
from typing import Final

FAMILIES: Final = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)

# General MIDI programs 0-127 by first program of a run; None: drums and effects, which have no pitch.
_GM_RUNS: Final[tuple[tuple[int, str | None], ...]] = (
    (0, "keyboard"),
    (8, "mallet"),
    (16, "organ"),
    (21, "reed"),  # accordion, harmonica, bandoneon: free reeds
    (24, "guitar"),
    (32, "bass"),
    (40, "string"),
    (47, "mallet"),  # timpani
    (48, "string"),
    (52, "vocal"),
    (55, "brass"),  # orchestra hit
    (56, "brass"),
    (64, "reed"),
    (72, "flute"),
    (80, "synth_lead"),
    (85, "vocal"),  # voice lead
    (86, "synth_lead"),
    (91, "vocal"),  # choir pad
    (92, "synth_lead"),
    (104, "guitar"),  # sitar, banjo, shamisen, koto
    (108, "mallet"),  # kalimba
    (109, "reed"),  # bagpipe
    (110, "string"),  # fiddle
    (111, "reed"),  # shanai
    (112, "mallet"),  # tinkle bell, agogo, steel drums, wood block
    (116, None),
)

# What a patch calls itself; the first match wins, so the more telling words come first.
_NAME_WORDS: Final[tuple[tuple[str, str], ...]] = (
    (r"bass ?oon|oboe|clari|sax|reed|harmonica|accord|bagpipe|shanai|english ?h|cor angl", "reed"),
    (r"bass|\bbs\b|contrab", "bass"),
    (r"bras|trump|trom|horn|tuba|cornet", "brass"),
    (r"flut|piccolo|recorder|ocarina|whist|pan ?pipe|shaku", "flute"),
    (r"guit|gtr|koto|sitar|banjo|lute|shami|harp(?!s)|pluck|pick", "guitar"),
    (r"vibe|marim|xylo|glock|bell|chime|celest|music ?box|mallet|steel|kalimba|tub", "mallet"),
    (r"organ|\borg|drawb|b-?3", "organ"),
    (r"voic|vox|choir|chorus|vocal|\baah|\booh", "vocal"),
    (r"pian|pno|\bep\b|e\.p|clav|harpsi|rhodes|wurl|keys?\b", "keyboard"),
    (r"str(in)?g|string|strg|str\b|viol|cello|orch|pad", "string"),
    (r"lead|syn|saw|square|solo", "synth_lead"),
)


def family_of_program(program: int) -> str | None:
    """NSynth family of General MIDI program 0-127; None for drums and sound effects."""
    family: str | None = None
    for first, name in _GM_RUNS:
        if program < first:
            break
        family = name
    return family


def family_of_name(name: str) -> str | None:
    """NSynth family that a patch's name tells, or None when it tells nothing."""
    lowered = name.lower()
    for pattern, family in _NAME_WORDS:
        if re.search(pattern, lowered):
            return family
    return None
