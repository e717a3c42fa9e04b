"""Notes as the map sees them, from a few numbers."""

from __future__ import annotations

import numpy as np

from timbrel.pgesam.dataset import MapNotes


def map_notes_of(entries: list[tuple[int, int, int, str]]) -> MapNotes:
    """From (instrument, family, pitch, split); all at velocity 100."""
    instrument, family, pitch, split = (np.array(column) for column in zip(*entries, strict=True))
    return MapNotes(
        row=np.arange(len(entries)),
        instrument=instrument,
        family=family,
        pitch=pitch,
        velocity=np.full(len(entries), 100),
        split=split,
        instruments=tuple(f"instrument {i}" for i in range(int(instrument.max()) + 1)),
    )
