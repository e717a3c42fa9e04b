"""Which notes of an instrument are wanted, and which instruments: one plan for every source.

The map learns from one note at every pitch, all at one velocity. Velocity as a condition is learnt from a few further
notes of each instrument, at other velocities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

Pair = tuple[int, int]  # (MIDI pitch, velocity)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotePlan:
    """What is asked of every source alike.

    ``velocity_notes``: further notes of each instrument, at velocities within ``velocities`` (both ends included)
    other than ``velocity``. ``instruments_per_family``: None keeps all. ``heldout_families``: families of which every
    instrument is in the test split. ``shares``: split -> share of the other instruments; the rest is for training.
    """

    pitches: tuple[int, ...]
    velocity: int
    velocity_notes: int
    velocities: Pair
    instruments_per_family: int | None
    heldout_families: tuple[str, ...]
    shares: Mapping[str, float]

    @property
    def main(self) -> tuple[Pair, ...]:
        """The notes that every instrument must have."""
        return tuple((pitch, self.velocity) for pitch in self.pitches)

    def extra(self, instrument: str, *, seed: int) -> tuple[Pair, ...]:
        """The further notes of ``instrument``, drawn by the seed and its name alone.

        One velocity from each of as many equal parts of the span, so that soft and loud both occur; no velocity
        and, while there are enough, no pitch twice.
        """
        low, high = self.velocities
        others = [velocity for velocity in range(low, high + 1) if velocity != self.velocity]
        count = min(self.velocity_notes, len(others))
        generator = np.random.default_rng(_number(f"{seed}/velocity/{instrument}"))
        edges = np.linspace(0, len(others), count + 1).astype(int)
        places = generator.integers(edges[:-1], edges[1:])
        pitches: list[int] = []
        while len(pitches) < count:
            pitches += generator.permutation(self.pitches).tolist()
        return tuple((pitch, others[place]) for pitch, place in zip(pitches, places, strict=False))


def seeded_order(names: Iterable[str], *, seed: int) -> list[str]:
    """``names``, each once, in an order of the seed's: the same however they come, and whatever else is among them."""
    return sorted(set(names), key=lambda name: (_number(f"{seed}/order/{name}"), name))


class OfFamily(Protocol):
    """Anything that belongs to a family."""

    @property
    def family(self) -> str: ...


Item = TypeVar("Item", bound=OfFamily)


def next_round(
    pending: Sequence[Item], kept: Mapping[str, int], per_family: int | None
) -> tuple[list[Item], list[Item]]:
    """(to try now, to try later): as many of each family as are missing to ``per_family``, given how many were kept.

    All at once where there is no cap. Nothing to try now means that every family has enough or has no more.
    """
    if per_family is None:
        return list(pending), []
    room = {each.family: per_family - kept.get(each.family, 0) for each in pending}
    now: list[Item] = []
    later: list[Item] = []
    for each in pending:
        (now if room[each.family] > 0 else later).append(each)
        room[each.family] -= 1
    return now, later


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
