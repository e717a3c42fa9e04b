"""The terms of a search: what may be found, and which part of it is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field

from timbrel.engine.arguments import MAX_DEPTH, MAX_HITS, number, whole
from timbrel.errors import InputError
from timbrel.library.filters import Filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What may be found, and which part of it is wanted.

    ``k`` hits (1-100) after the first ``offset``, together 1,000 at most. ``octaves``: renders around the pitch in
    every octave count as near it. ``fold``: near-duplicates are one hit.

    Raises InputError for a number out of range.
    """

    k: int = 10
    offset: int = 0
    octaves: bool = False
    filters: Filters = field(default_factory=Filters)
    fold: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", whole("k", self.k, 1, MAX_HITS))
        object.__setattr__(self, "offset", whole("offset", self.offset, 0, MAX_DEPTH - 1))
        number("min_confidence", self.filters.min_confidence, 0, 1, "a confidence")
        if self.offset + self.k > MAX_DEPTH:
            raise InputError(
                f"offset + k is at most {MAX_DEPTH}, not {self.offset + self.k}: narrow the search by family, bank "
                "or pitch instead of paging further"
            )
