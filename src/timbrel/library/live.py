"""The index that is searched now, while another takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from timbrel.errors import InputError
from timbrel.library.index import Found, PitchIndex


class LiveIndex:
    """Holds one ``PitchIndex`` at a time. A query is answered whole by the index it began with; one change at a
    time is made, so that none is lost.
    """

    def __init__(self, index: PitchIndex) -> None:
        self._index = index
        self._changing = threading.Lock()

    @property
    def index(self) -> PitchIndex:
        """The present one; it does not change, so whoever asks several things of it gets answers that agree."""
        return self._index

    def query(self, *args: Any, **options: Any) -> Found:
        """``PitchIndex.query`` of the present index."""
        return self._index.query(*args, **options)

    def swap(self, index: PitchIndex) -> PitchIndex:
        """Put another in its place, and return the former. Queries that run now end on the former.

        Raises:
            InputError: the other is of another encoder or dimension, whose distances mean something else.
        """
        return self.change(lambda _: index)

    def change(self, make: Callable[[PitchIndex], PitchIndex]) -> PitchIndex:
        """Replace the present index by what ``make`` makes of it (adds, removes), and return the former; other
        changes wait, queries do not.
        """
        with self._changing:
            former = self._index
            new = make(former)
            if (new.encoder, new.dimension) != (former.encoder, former.dimension):
                raise InputError(
                    f"an index of encoder {new.encoder[:12]}…, {new.dimension} dimensions, cannot replace one of "
                    f"{former.encoder[:12]}…, {former.dimension}; open it as a bundle of its own"
                )
            self._index = new
        return former
