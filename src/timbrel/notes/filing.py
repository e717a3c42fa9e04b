"""What becomes of a rendered patch: kept with its renders filed under what sounds, or dropped with the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from timbrel.notes.noteset import Note
from timbrel.notes.patches import Patch
from timbrel.notes.render import Rendered
from timbrel.notes.selection import OFFSET_TOLERANCE, sounding_offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """``patch`` with its offset measured; its ``notes`` (``row`` 0) and the ``audio`` of each, int16 [96000].

    ``silent`` renders were left out.
    """

    patch: Patch
    notes: tuple[Note, ...]
    audio: tuple[npt.NDArray[np.int16], ...]
    silent: int

    def probe(self, renders: int) -> list[npt.NDArray[np.int16]] | None:
        """What copies are told by: the lowest, middle and highest of ``renders`` renders; None where any is silent,
        since pictures of other keys do not compare."""
        count = len(self.audio)
        return list(self.audio[:: max(1, (count - 1) // 2)]) if count == renders else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """``reason``: crashed, timed_out, failed, not_finite, silent, unpitched, inconsistent or duplicate."""

    reason: str
    detail: str


def file_renders(patch: Patch, outcome: Rendered, *, pitched_share: float) -> Kept | Dropped:
    """File the renders of ``patch`` under what sounds, or drop it.

    ``pitched_share``: of its renders so many must sound, and of these so many at a constant distance from their keys.
    """
    if outcome.fault:
        return Dropped(reason=outcome.fault, detail=outcome.detail)
    if any(note.fault == "not_finite" for note in outcome.notes):
        return Dropped(reason="not_finite", detail="the engine gave NaN or infinity")
    sounding = [(note, note.audio) for note in outcome.notes if note.audio is not None]
    silent = len(outcome.notes) - len(sounding)
    if len(sounding) < pitched_share * len(outcome.notes):
        return Dropped(reason="silent", detail=f"{silent} silent renders")
    offset = sounding_offset(
        [note.pitch for note, _ in sounding], [note.f0_midi for note, _ in sounding], share=pitched_share
    )
    if offset is None:
        voiced = sum(math.isfinite(note.f0_midi) for note, _ in sounding)
        few = voiced < pitched_share * len(sounding)
        return Dropped(reason="unpitched" if few else "inconsistent", detail=f"{voiced} voiced renders")
    notes = []
    for note, _ in sounding:
        # What disagrees with the patch's steady offset is a slip of the estimator, an octave mostly.
        steady = abs(note.f0_midi - note.pitch - offset) <= OFFSET_TOLERANCE
        notes.append(
            Note(
                row=0,
                note_id=f"{patch.patch_id}-{note.pitch:03d}-{note.velocity:03d}",
                instrument=patch.patch_id,
                name=patch.name,
                family=patch.family,
                source=patch.engine,
                pitch=note.pitch,
                velocity=note.velocity,
                split=patch.split,
                f0_midi=note.f0_midi if steady else note.pitch + offset,
                f0_confidence=note.f0_confidence if steady else 0.0,
            )
        )
    return Kept(
        patch=replace(patch, offset_semitones=offset),
        notes=tuple(notes),
        audio=tuple(audio for _, audio in sounding),
        silent=silent,
    )
