"""Which notes and which instruments are asked for: seeded, and the same in whatever order they come."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbrel.notes.families import FAMILIES
from timbrel.notes.plan import NotePlan, next_round, seeded_order
from timbrel.notes.splits import assign_splits


def plan(**changes: Any) -> NotePlan:
    values: dict[str, Any] = {
        "pitches": tuple(range(48, 73)),
        "velocity": 100,
        "velocity_notes": 10,
        "velocities": (25, 127),
        "instruments_per_family": None,
        "heldout_families": (),
        "shares": {"validation": 0.1, "test": 0.1},
    }
    return NotePlan(**{**values, **changes})


@dataclass(frozen=True)
class Voice:
    name: str
    family: str


def test_main_notes_are_one_per_pitch() -> None:
    assert plan(pitches=(60, 61), velocity=90).main == ((60, 90), (61, 90))


@given(
    seed=st.integers(0, 1000), count=st.integers(0, 40), low=st.integers(1, 127), width=st.integers(0, 126)
)
def test_further_notes_lie_within_the_plan(seed: int, count: int, low: int, width: int) -> None:
    wanted = plan(velocity_notes=count, velocities=(low, min(127, low + width)))
    found = wanted.extra("organ_dx7_001", seed=seed)
    velocities = [velocity for _, velocity in found]
    possible = set(range(low, min(127, low + width) + 1)) - {100}
    assert len(found) == min(count, len(possible))
    assert set(velocities) <= possible
    assert velocities == sorted(set(velocities))
    pitches = Counter(pitch for pitch, _ in found)
    assert set(pitches) <= set(wanted.pitches)
    assert max(pitches.values(), default=0) <= -(-len(found) // 25)


def test_further_notes_are_the_instruments_own_and_cover_soft_and_loud() -> None:
    wanted = plan()
    first = wanted.extra("organ_dx7_001", seed=1)
    assert first == wanted.extra("organ_dx7_001", seed=1)
    assert first != wanted.extra("organ_dx7_002", seed=1)
    assert first != wanted.extra("organ_dx7_001", seed=2)
    drawn = [pair for number in range(200) for pair in wanted.extra(str(number), seed=1)]
    pitches, velocities = np.array(drawn).T
    assert np.histogram(velocities, bins=[25, 50, 75, 100, 128])[0] / len(drawn) == pytest.approx(
        [25 / 102, 25 / 102, 25 / 102, 27 / 102], abs=0.02
    )
    assert pitches.mean() == pytest.approx(60, abs=0.5)


NAMES = st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=20)


@given(names=NAMES, more=NAMES, seed=st.integers(0, 99))
def test_the_order_of_some_does_not_depend_on_the_others(
    names: list[str], more: list[str], seed: int
) -> None:
    order = seeded_order(names, seed=seed)
    assert sorted(order) == sorted(names)
    assert [name for name in seeded_order([*more, *names], seed=seed) if name in set(names)] == order


def test_the_seed_decides_the_order() -> None:
    names = [str(number) for number in range(50)]
    assert seeded_order(names, seed=1) != seeded_order(names, seed=2)
    assert seeded_order(names, seed=1) == seeded_order(reversed(names), seed=1)


@given(
    families=st.lists(st.sampled_from(FAMILIES[:4]), max_size=40),
    unusable=st.sets(st.integers(0, 39)),
    cap=st.one_of(st.none(), st.integers(1, 6)),
    shuffle=st.integers(0, 1000),
)
def test_the_cap_chooses_the_same_instruments_in_any_order(
    families: list[str], unusable: set[int], cap: int | None, shuffle: int
) -> None:
    voices = {str(number): Voice(str(number), family) for number, family in enumerate(families)}
    dropped = {str(number) for number in unusable}

    def kept(names: list[str]) -> set[str]:
        """As a source goes through its instruments: some of them turn out to be of no use."""
        pending = [voices[name] for name in seeded_order(names, seed=5)]
        counts: Counter[str] = Counter()
        found: set[str] = set()
        while True:
            batch, pending = next_round(pending, counts, cap)
            if not batch:
                return found
            for voice in batch:
                if voice.name not in dropped:
                    counts[voice.family] += 1
                    found.add(voice.name)

    shuffled = list(voices)
    random.Random(shuffle).shuffle(shuffled)
    found = kept(list(voices))
    assert kept(shuffled) == found
    usable = Counter(voice.family for voice in voices.values() if voice.name not in dropped)
    wanted = {family: count if cap is None else min(cap, count) for family, count in usable.items()}
    assert Counter(voices[name].family for name in found) == wanted


@given(
    families=st.dictionaries(st.text(min_size=1, max_size=5), st.sampled_from(FAMILIES), max_size=60),
    heldout=st.sets(st.sampled_from(FAMILIES), max_size=3),
    seed=st.integers(0, 99),
    shuffle=st.integers(0, 1000),
)
def test_every_instrument_is_in_one_split_and_a_family_held_out_is_in_test(
    families: dict[str, str], heldout: set[str], seed: int, shuffle: int
) -> None:
    shares = {"validation": 0.1, "test": 0.15}
    splits = assign_splits(families, shares, seed=seed, heldout_families=heldout)
    items = list(families.items())
    random.Random(shuffle).shuffle(items)
    assert assign_splits(dict(items), shares, seed=seed, heldout_families=heldout) == splits
    assert splits.keys() == families.keys()
    assert set(splits.values()) <= {"train", "validation", "test"}
    assert all(splits[name] == "test" for name, family in families.items() if family in heldout)
    # The other families are split as if those held out were not there.
    others = {name: family for name, family in families.items() if family not in heldout}
    assert assign_splits(others, shares, seed=seed) == {name: splits[name] for name in others}
