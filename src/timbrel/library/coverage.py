"""How wide the pitch gate has to open for a query.

Patches are rendered at a handful of pitches, so the renders nearest to a query's pitch may lie some semitones
away. Within a fixed narrow window the search would find the few patches that happen to have a render there,
and miss the rest whatever they sound like. So the window starts at the library's own width and opens,
semitone by semitone, until nearly every patch that has a render within an octave can be compared.
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
        """``patch_of`` int [renders] numbers the patches from 0."""
        patches = int(patch_of.max()) + 1
        pitches = np.arange(MIDI_PITCHES)
        nearest = np.full((MIDI_PITCHES, patches), MIDI_PITCHES)
        sounding = [
            (semitone(render.f0_midi), patch)
            for render, patch in zip(renders, patch_of.tolist(), strict=True)
            if not math.isnan(render.f0_midi)
        ]
        for pitch, patch in set(sounding):
            np.minimum(nearest[:, patch], np.abs(pitches - pitch), out=nearest[:, patch])
        # Sorted per pitch: entry n is the window that admits n + 1 patches.
        self._windows = np.sort(nearest, axis=1)
        all_pitches = [render.f0_midi for render in renders if not math.isnan(render.f0_midi)]
        self.lowest = min(all_pitches, default=math.nan)
        self.highest = max(all_pitches, default=math.nan)

    def window(self, pitch: float, *, least: int, patches: int) -> int:
        """The half-width in semitones, from ``least`` to an octave, at which enough patches can be compared.

        Enough is ``SHARE`` of those with a render within an octave of ``pitch``, and at least ``patches`` of
        them.
        """
        windows = self._windows[min(max(semitone(pitch), 0), MIDI_PITCHES - 1)]
        reachable = int(np.searchsorted(windows, WIDEST, side="right"))
        if reachable == 0:
            return least
        enough = min(max(math.ceil(SHARE * reachable), patches), reachable)
        return max(least, int(windows[enough - 1]))
