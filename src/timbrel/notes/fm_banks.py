"""Our own bank of DX7 voices: seeded, written as real .syx files.

Voices are drawn in turn from the templates of fm_templates.py and fm_templates_sustained.py, each from a
generator of its own ``(seed, index)``: a longer bank begins with the same voices, and no voice depends on how
many came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from timbrel.files import atomic_write
from timbrel.notes.dx7 import VOICES_PER_BANK, Operator, Voice, write_bank
from timbrel.notes.fm_templates import STRUCK, Dice, Sketch, Template
from timbrel.notes.fm_templates_sustained import SUSTAINED

TEMPLATES: Final[tuple[Template, ...]] = STRUCK + SUSTAINED

# What each algorithm's operators are heard as: the carriers, 1-6 (DX7 owner's manual, algorithm chart).
_CARRIERS: Final = (
    *((1, 3), (1, 3), (1, 4), (1, 4), (1, 3, 5), (1, 3, 5), (1, 3), (1, 3), (1, 3), (1, 4), (1, 4)),
    *((1, 3), (1, 3), (1, 3), (1, 3), (1,), (1,), (1,), (1, 4, 5), (1, 2, 4), (1, 2, 4, 5), (1, 3, 4, 5)),
    *((1, 2, 4, 5), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5), (1, 2, 4), (1, 2, 4), (1, 3, 6), (1, 2, 3, 5)),
    *((1, 2, 3, 6), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6)),
)
# Longest adjective that still leaves room for label and number in ten characters.
_BRIGHTNESS: Final = ((58, "Dim"), (66, "Soft"), (73, "Warm"), (79, "Full"), (100, "Brit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedVoice:
    """A voice, the template it came from, and its NSynth family."""

    voice: Voice
    template: str
    family: str


def generate(count: int, *, seed: int, templates: Sequence[Template] = TEMPLATES) -> list[GeneratedVoice]:
    """``count`` voices, the templates in turn."""
    made = []
    for index in range(count):
        template = templates[index % len(templates)]
        dice = Dice(np.random.default_rng((seed, index)))
        voice = _assemble(template.draw(dice), f"{template.label} {index // len(templates) + 1}")
        made.append(
            GeneratedVoice(
                voice=_named(voice, template, index), template=template.name, family=template.family
            )
        )
    return made


def carriers(algorithm: int) -> tuple[int, ...]:
    """Operators 1-6 that are heard in ``algorithm`` 1-32."""
    return _CARRIERS[algorithm - 1]


def _assemble(sketch: Sketch, name: str) -> Voice:
    operators = tuple(sketch.operators.get(number, Operator()) for number in range(1, 7))
    return Voice(
        name=name,
        algorithm=sketch.algorithm,
        operators=operators,
        feedback=sketch.feedback,
        **sketch.extra,  # type: ignore[arg-type]
    )


def _named(voice: Voice, template: Template, index: int) -> Voice:
    """A name of ten characters that tells brightness, family and number, such as "Warm Bras7"."""
    heard = carriers(voice.algorithm)
    levels = [op.output for number, op in enumerate(voice.operators, start=1) if number not in heard]
    mean = sum(levels) / len(levels) if levels else 0
    word = next(word for top, word in _BRIGHTNESS if mean < top)
    number = str(index // len(TEMPLATES) + 1)
    return replace(voice, name=f"{word}{template.label}"[: 10 - len(number)] + number)


def write_banks(voices: Sequence[Voice], folder: Path, *, stem: str) -> list[Path]:
    """Write ``voices`` as bank files ``<stem>-01.syx``, ... of 32 voices each; returns their paths."""
    paths = []
    for start in range(0, len(voices), VOICES_PER_BANK):
        path = folder / f"{stem}-{start // VOICES_PER_BANK + 1:02d}.syx"
        with atomic_write(path) as handle:
            handle.write(write_bank(voices[start : start + VOICES_PER_BANK]))
        paths.append(path)
    return paths
