"""How wide the pitch gate has to open for a query, and how much it reaches.

Patches are rendered at a handful of pitches, so the renders nearest to a query's pitch may lie some semitones
away. Within a fixed narrow window the search would find the few patches that happen to have a render there,
and miss the rest whatever they sound like. So the window starts at the library's own width and opens,
semitone by semitone, until nearly every patch that has a render within an octave can be compared: every patch
that the filters leave, where there are filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from timbrel.library.index import semitone
from timbrel.library.tables import Render

WIDEST = 12
# Not all: a single patch with few pitches would open the gate for everyone.
SHARE = 0.95
MIDI_PITCHES = 128


class Coverage:
    """For every MIDI pitch, how far each patch's nearest render lies from it."""

    def __init__(self, renders: Sequence[Render], patch_of: np.ndarray) -> None:
        """``patch_of`` int [renders] numbers the patches from 0; renders that share a number count as one patch."""
        self._labels = np.asarray(patch_of)
        self._count = len(np.unique(self._labels))
        all_pitches = [render.f0_midi for render in renders if not math.isnan(render.f0_midi)]
        self.lowest = min(all_pitches, default=math.nan)
        self.highest = max(all_pitches, default=math.nan)
        self._pitched = np.array([not math.isnan(render.f0_midi) for render in renders])
        self._semitones = np.array([0 if math.isnan(r.f0_midi) else semitone(r.f0_midi) for r in renders])
        # Sorted per pitch: entry n is the window that admits n + 1 patches. Bytes: there may be 1e5 patches.
        everything = np.ones(len(renders), dtype=bool)
        self._windows = np.stack([self._nearest(pitch, everything, False) for pitch in range(MIDI_PITCHES)])

    def window(
        self,
        pitch: float,
        *,
        least: int,
        patches: int,
        octaves: bool = False,
        allow: np.ndarray | None = None,
    ) -> int:
        """The half-width in semitones, from ``least`` to an octave, at which enough patches can be compared.

        Enough is ``SHARE`` of those with a render within an octave of ``pitch``, and at least ``patches`` of
        them. With ``octaves`` a render in any octave counts by its distance to the pitch there. ``allow`` bool
        [renders] says which renders count at all.
        """
        windows = self._sorted(pitch, octaves, allow)
        reachable = int(np.searchsorted(windows, WIDEST, side="right"))
        if reachable == 0:
            return least
        enough = min(max(math.ceil(SHARE * reachable), patches), reachable)
        return max(least, int(windows[enough - 1]))

    def reached(
        self, pitch: float | None, window: int, *, octaves: bool = False, allow: np.ndarray | None = None
    ) -> int:
        """How many patches have a render within ``window`` semitones of ``pitch``; at all, for ``None``."""
        if pitch is None:
            return self._count if allow is None else len(np.unique(self._labels[allow]))
        return int(np.searchsorted(self._sorted(pitch, octaves, allow), window, side="right"))

    def _sorted(self, pitch: float, octaves: bool, allow: np.ndarray | None) -> np.ndarray:
        """The windows that admit one patch, two patches, …: uint8 [at most patches], ascending."""
        key = min(max(semitone(pitch), 0), MIDI_PITCHES - 1)
        if allow is None and not octaves:
            return np.asarray(self._windows[key])
        return self._nearest(key, np.ones_like(self._pitched) if allow is None else allow, octaves)

    def _nearest(self, pitch: int, allow: np.ndarray, octaves: bool) -> np.ndarray:
        """How far each patch's nearest render lies, ``MIDI_PITCHES`` where it has none: uint8, ascending."""
        rows = np.flatnonzero(self._pitched & allow)
        away = np.abs(self._semitones[rows] - pitch)
        if octaves:
            away = np.minimum(away % 12, -away % 12)
        nearest = np.full(int(self._labels.max()) + 1, MIDI_PITCHES, dtype=np.uint8)
        np.minimum.at(nearest, self._labels[rows], away.astype(np.uint8))
        return np.sort(nearest)
