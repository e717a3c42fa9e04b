"""A gate as Milvus' boolean expression: pitch window or octaves, families, banks, confidence, a patch left out."""

from __future__ import annotations

from collections.abc import Sequence

from timbrel.engine.index import Gate
from timbrel.library.gate import OCTAVE, centre, opened

# What a render without a pitch is filed under: nothing that a window reaches.
NO_PITCH = -1000
NO_OCTAVE = -1


def expression(gate: Gate) -> str:
    """The filter of a search behind ``gate``; empty where it opens everything.

    Raises InputError: the pitch is not finite, or the window negative.
    """
    parts = [*_pitches(gate)]
    for field, names in (("family", gate.filters.families), ("bank", gate.filters.banks)):
        if names:
            parts.append(f"{field} in [{', '.join(map(literal, names))}]")
    if gate.filters.min_confidence > 0:
        parts.append(f"confidence >= {gate.filters.min_confidence!r}")
    if gate.leave_out is not None:
        parts.append(f"patch_id != {literal(gate.leave_out)}")
    return " and ".join(parts)


def literal(text: str) -> str:
    """``text`` as a string of an expression."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return f'"{"".join(escapes.get(letter, letter) for letter in text)}"'


def _pitches(gate: Gate) -> Sequence[str]:
    if gate.midi is None:
        return ()
    middle = centre(gate.midi)
    if gate.octaves:
        classes = opened(range(OCTAVE), middle, gate.window, octaves=True)
        return (f"octave in {list(classes)}",)
    opened((), middle, gate.window)  # its check of the window
    return (f"semitone >= {middle - gate.window}", f"semitone <= {middle + gate.window}")
