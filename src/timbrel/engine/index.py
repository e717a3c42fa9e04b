"""What the search asks an index for: the nearest renders among those that a gate opens.

Two of them: the bundle's own, in this process, and a Milvus server's (``timbrel.milvus``), which other machines share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from timbrel.library.filters import Filters
from timbrel.library.index import Found, PitchIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Which renders a search may return: those within ``window`` semitones of ``midi`` (of its octaves, too; all
    pitches for None) that pass ``filters`` and are not of the patch ``leave_out``.

    ``allow`` says the last two once more, as bool [renders]; None for all.
    """

    midi: float | None
    window: int
    octaves: bool
    filters: Filters
    leave_out: str | None
    allow: np.ndarray | None


class Index(Protocol):
    """Stage 1. Ids are rows of the bundle's table of renders. Thread-safe."""

    def query(self, vector: np.ndarray, gate: Gate, k: int) -> Found:
        """The ``k`` renders nearest to ``vector`` float32 [d], l2-normalised, that ``gate`` opens; nearest first, equal
        distances by id. Fewer where it opens fewer.

        Raises Unavailable where the index is a server that does not answer.
        """
        ...

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Of renders, int64 [n] -> float32 [n, d]."""
        ...

    def close(self) -> None: ...


class BundleIndex:
    """``Index`` over the bundle's own."""

    def __init__(self, index: PitchIndex) -> None:
        self._index = index

    def query(self, vector: np.ndarray, gate: Gate, k: int) -> Found:
        return self._index.query(
            vector, pitch=gate.midi, window=gate.window, k=k, octaves=gate.octaves, allow=gate.allow
        )

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return self._index.vectors(rows)

    def close(self) -> None:
        """Nothing to let go of: the bundle has it."""
