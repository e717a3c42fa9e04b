"""Filters: which renders a search may return, by family, by bank, and by how sure their pitch is.

A filter is a mask over the renders that stage 1 searches with; nothing is struck out afterwards, so a page is as
full as the filter leaves patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from timbrel.errors import InputError
from timbrel.library.tables import Patch, Render

NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """``families`` and ``banks``: any of those named, every one where none is. ``min_confidence``: how sure the
    pitch of a render must be, 0-1; any above 0 leaves out the renders that have no pitch.
    """

    families: tuple[str, ...] = ()
    banks: tuple[str, ...] = ()
    min_confidence: float = 0.0


class Shelves:
    """Families and banks of a library, and the confidence of each render's pitch."""

    def __init__(self, patches: Sequence[Patch], renders: Sequence[Render], patch_of: np.ndarray) -> None:
        """``patch_of`` int [renders] numbers the patches from 0."""
        self._family = Names("family", [patch.family for patch in patches])
        self._bank = Names("bank", [patch.bank for patch in patches])
        self._patch_of = patch_of
        pitched = [np.isfinite([r.f0_midi, r.f0_confidence]).all() for r in renders]
        # A render without a pitch is below every bound but 0.
        self._confidence = np.where(pitched, [r.f0_confidence for r in renders], 0.0)

    def allow(self, filters: Filters) -> np.ndarray | None:
        """Which renders pass, bool [renders]; None where nothing is filtered.

        Raises InputError naming a family or a bank that the library does not have, and some that it has.
        """
        if filters == Filters():
            return None
        passing = np.ones(len(self._patch_of), dtype=bool)
        for names, wanted in ((self._family, filters.families), (self._bank, filters.banks)):
            if wanted:
                passing &= names.among(wanted)[self._patch_of]
        return passing & (self._confidence >= filters.min_confidence)


class Names:
    """One column of the patches' table; ``what`` is how a message calls it."""

    def __init__(self, what: str, values: Sequence[str]) -> None:
        self._what = what
        self._known, self._codes = np.unique(np.array(values), return_inverse=True)

    def among(self, wanted: Sequence[str]) -> np.ndarray:
        """Which patches have one of the names, bool [patches]."""
        known = self._known.tolist()
        for name in wanted:
            if name not in known:
                near = get_close_matches(name, known, n=3, cutoff=0.5)
                shown = list(dict.fromkeys([*near, *known]))[:NAMED]
                more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
                raise InputError(
                    f"the library has no {self._what} {name[:80]!r}: choose among {', '.join(shown)}{more}"
                )
        return np.asarray(np.isin(self._known, list(wanted))[self._codes])
