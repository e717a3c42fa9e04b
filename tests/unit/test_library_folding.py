"""Near-duplicates on vectors made by hand: who folds into whom, and who does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pytest

from timbrel.library.folding import NEIGHBOURS, SameSound, leaders
from timbrel.library.index import PitchIndex
from timbrel.library.tables import Patch, Render

# Pitch -> angle of the render's vector, in degrees: 1 - cos 1° is .00015, 10° .0152, 15° .0341, 20° .0603.
Sound = Mapping[float, float]
LIMIT = 1 - math.cos(math.radians(12))


def at(angle: float) -> list[float]:
    return [math.cos(math.radians(angle)), math.sin(math.radians(angle))]


def library(
    sounds: Sequence[Sound], payloads: Sequence[str] = ()
) -> tuple[tuple[Patch, ...], tuple[Render, ...], np.ndarray, np.ndarray]:
    """Patches, renders, patch_of and vectors; pitches below 0 are none."""
    patches, renders, patch_of, vectors = [], [], [], []
    for number, sound in enumerate(sounds):
        patches.append(
            Patch(
                patch_id=str(number), name="", bank="", family="", engine="dx7", offset_semitones=0.0, x=0.0, y=0.0,
                payload="p", sha256=payloads[number] if payloads else str(number),
            )
        )  # fmt: skip
        for place, (pitch, angle) in enumerate(sound.items()):
            renders.append(
                Render(
                    row=len(renders), patch_id=str(number), note_id="", key=60 + place, velocity=100,
                    f0_midi=pitch if pitch > 0 else math.nan, f0_confidence=1.0,
                )
            )  # fmt: skip
            patch_of.append(number)
            vectors.append(at(angle))
    return tuple(patches), tuple(renders), np.array(patch_of), np.array(vectors, dtype=np.float32)


def grouped(sounds: Sequence[Sound], *, distance: float = LIMIT, payloads: Sequence[str] = ()) -> list[int]:
    patches, renders, patch_of, vectors = library(sounds, payloads)
    index = PitchIndex.build(vectors, np.array([r.f0_midi for r in renders]), encoder="e")
    return leaders(
        patches, renders, patch_of=patch_of, index=index, stage2=vectors.astype(np.float16), distance=distance
    ).tolist()


def apart(first: Sound, second: Sound) -> float:
    _, renders, patch_of, vectors = library([first, second])
    return SameSound(renders, patch_of, vectors).distance(0, 1)


def test_the_distance_of_two_patches_is_the_largest_at_a_pitch_they_share() -> None:
    one = {48: 0, 60: 0, 72: 0}
    assert apart(one, {48: 5, 60: 20, 72: 10}) == pytest.approx(1 - math.cos(math.radians(20)), abs=1e-6)
    assert apart(one, {48.4: 5, 59.6: 10, 90: 80}) == pytest.approx(1 - math.cos(math.radians(10)), abs=1e-6)
    assert apart(one, {48.6: 5, 60.6: 10, 90: 80}) == math.inf, "none within half a semitone"
    assert apart(one, {48: 5, 61: 5, 73: 5}) == math.inf, "one pitch of three is too little to go by"
    assert apart(one, {48: 5, 61: 5}) == pytest.approx(1 - math.cos(math.radians(5)), abs=1e-6)


def test_renders_without_a_pitch_are_paired_by_their_keys() -> None:
    assert apart({-1: 0, -2: 30}, {-1: 5, -2: 30}) == pytest.approx(1 - math.cos(math.radians(5)), abs=1e-6)
    assert apart({-1: 0}, {60: 0}) == math.inf


def test_what_is_near_at_every_pitch_folds_into_the_first() -> None:
    assert grouped([{60: 0, 72: 0}, {60: 10, 72: 5}, {60: 40, 72: 0}]) == [0, 0, 2]
    assert grouped([{60: 0, 72: 0}, {60: 10, 72: 20}]) == [0, 1]


def test_a_chain_does_not_become_one() -> None:
    chain = [{60.0: 10.0 * step} for step in range(6)]
    assert grouped(chain) == [0, 0, 2, 2, 4, 4]
    for order in permutations(range(4)):
        result = grouped([chain[step] for step in order])
        for number, leader in enumerate(result):
            assert abs(order[number] - order[leader]) <= 1, (
                "no member is further than the limit from its leader"
            )
            assert result[leader] == leader


def test_a_patch_joins_the_nearest_leader() -> None:
    assert grouped([{60: 0}, {60: 20}, {60: 11}, {60: 9}]) == [0, 1, 1, 0]


def test_more_copies_than_neighbours_are_one_group() -> None:
    copies = [{60.0: 0.01 * number, 72.0: 0.0} for number in range(5 * NEIGHBOURS)]
    assert grouped([*copies, {60: 90, 72: 90}]) == [0] * (5 * NEIGHBOURS) + [5 * NEIGHBOURS]


def test_equal_payloads_always_fold() -> None:
    sounds = [{60.0: 0.0}, {60.0: 90.0}, {72.0: 0.0}, {60.0: 5.0}]
    assert grouped(sounds, payloads=["a", "b", "a", "c"]) == [0, 1, 0, 0]
    assert grouped(sounds, payloads=["a", "b", "a", "b"], distance=0.0) == [0, 1, 0, 1]
