"""Stage 2 on candidates equals exhaustive stage 2 when it is given all; and how wide the gate opens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.errors import InputError
from timbrel.library import two_stage
from timbrel.library.coverage import SHARE, WIDEST, Coverage
from timbrel.library.index import Found, PitchIndex, semitone
from timbrel.library.styles import Styles
from timbrel.library.tables import Render


def unit(rng: np.random.Generator, count: int, dimension: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def render(row: int, patch: int, f0_midi: float) -> Render:
    return Render(
        row=row, patch_id=str(patch), note_id="", key=60, velocity=100, f0_midi=f0_midi, f0_confidence=1.0
    )


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 12), st.integers(1, 15))
def test_with_all_candidates_the_order_is_that_of_exhaustive_stage_2(
    seed: int, count: int, patches: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    stage1, stage2 = unit(rng, count, 4), unit(rng, count, 10).astype(np.float16)
    patch_of = rng.integers(0, patches, count)
    query1, query2 = unit(rng, 1, 4)[0], unit(rng, 1, 10)[0]
    index = PitchIndex.build(stage1, np.full(count, 60.0), encoder="e")

    found = index.query(query1, pitch=60, window=0, k=count)
    matches = two_stage.order(found, query=query2, stage2=Styles(stage2), patch_of=patch_of, k=k)

    distances = np.maximum(1 - stage2.astype(np.float32) @ query2, 0)
    best = {int(p): float(distances[patch_of == p].min()) for p in np.unique(patch_of)}
    expected = sorted(best.values())[:k]
    np.testing.assert_allclose([match.stage2_distance for match in matches], expected, atol=1e-6)
    for match in matches:
        assert match.stage2_distance == pytest.approx(best[int(patch_of[match.row])], abs=1e-6)
        assert match.stage1_distance == pytest.approx(max(0, 1 - stage1[match.row] @ query1), abs=1e-6)
    assert len({int(patch_of[match.row]) for match in matches}) == len(matches)


def test_stage_one_has_as_much_say_as_its_share() -> None:
    stage2 = np.array([[0.8, 0.6], [0.6, 0.8]], np.float16)
    found = Found(np.array([0, 1]), np.array([0.9, 0.1], np.float32))

    def ordered(share: float, scales: np.ndarray | None = None) -> list[tuple[int, float]]:
        matches = two_stage.order(
            found, query=np.array([1, 0], np.float32), stage2=Styles(stage2), patch_of=np.arange(2), k=2,
            stage1_share=share, scales=scales,
        )  # fmt: skip
        return [(match.row, round(match.distance, 3)) for match in matches]

    # By stage 2 they are .2 and .4 away, by stage 1 .9 and .1: one ratio is 2, the other 9, so at log 2 / log 18 = .24
    # they are as far. At 1/2 it is sqrt(.18) and sqrt(.04).
    assert ordered(0.0) == [(0, 0.2), (1, 0.4)]
    assert ordered(0.2) == [(0, 0.271), (1, 0.303)]
    assert ordered(0.5) == [(1, 0.2), (0, 0.425)]
    assert ordered(0.2, np.array([0.5, 1.0], np.float32)) == [(1, 0.303), (0, 0.541)]


def test_blended_distances_stay_distances() -> None:
    equal, near, far = np.float32([0.0]), np.float32([1e-6]), np.float32([2.0])
    assert two_stage.blended(equal, equal, 0.75)[0] == pytest.approx(0.0, abs=1e-6)
    assert two_stage.blended(far, far, 0.75)[0] == pytest.approx(2.0, abs=1e-5)
    # Equal by one stage alone is not equal; and how equal does not matter.
    once, nearly = two_stage.blended(equal, far, 0.75)[0], two_stage.blended(near, far, 0.75)[0]
    assert once == pytest.approx(0.0057, abs=1e-4)
    assert nearly == pytest.approx(once, rel=2e-3)


def test_each_patch_appears_once_with_its_best_render() -> None:
    stage2 = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float16)
    found = Found(np.array([3, 2, 1, 0]), np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    matches = two_stage.order(
        found, query=np.array([0, 1], np.float32), stage2=Styles(stage2), patch_of=np.array([0, 1, 0, 1]), k=5
    )
    assert [(match.row, match.stage1_distance) for match in matches] == [
        (3, pytest.approx(0.1)),
        (2, pytest.approx(0.2)),
    ]
    assert [match.stage2_distance for match in matches] == pytest.approx([0, 0.2], abs=1e-3)


def test_ties_go_to_stage_1_then_to_the_row() -> None:
    stage2 = np.tile(np.array([[1, 0]], np.float16), (3, 1))
    found = Found(np.array([2, 0, 1]), np.array([0.5, 0.1, 0.1], np.float32))
    matches = two_stage.order(
        found, query=np.array([1, 0], np.float32), stage2=Styles(stage2), patch_of=np.arange(3), k=3
    )
    assert [match.row for match in matches] == [0, 1, 2]


def test_no_candidates_no_hits() -> None:
    nothing = Found(np.empty(0, np.int64), np.empty(0, np.float32))
    query = np.array([1, 0], np.float32)
    stage2 = np.zeros((3, 2), np.float16)
    assert two_stage.order(nothing, query=query, stage2=Styles(stage2), patch_of=np.arange(3), k=3) == ()


@pytest.mark.parametrize(
    ("query", "message"),
    [(np.zeros(3, np.float32), "shape"), (np.array([np.nan, 0], np.float32), "not finite")],
)
def test_a_query_that_does_not_fit_is_refused(query: np.ndarray, message: str) -> None:
    found = Found(np.array([0]), np.array([0.5], np.float32))
    with pytest.raises(InputError, match=message):
        two_stage.order(
            found, query=query, stage2=Styles(np.zeros((3, 2), np.float16)), patch_of=np.arange(3), k=1
        )


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(20, 110)), min_size=1, max_size=40),
    st.floats(0, 127),
    st.integers(0, 4),
    st.integers(1, 10),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
def test_the_window_is_the_least_that_reaches_enough_patches(
    entries: list[tuple[int, float]],
    pitch: float,
    least: int,
    wanted: int,
    octaves: bool,
    filtered: int | None,
) -> None:
    renders = [render(row, patch, f0) for row, (patch, f0) in enumerate(entries)]
    coverage = Coverage(renders, np.array([patch for patch, _ in entries]))
    allow = None if filtered is None else np.random.default_rng(filtered).random(len(entries)) < 0.5
    left = [entry for row, entry in enumerate(entries) if allow is None or allow[row]]

    def within(window: int) -> int:
        shifts = range(-120, 121, 12) if octaves else (0,)
        return len(
            {
                patch
                for patch, f0 in left
                if any(abs(semitone(f0) - semitone(pitch) + shift) <= window for shift in shifts)
            }
        )

    window = coverage.window(pitch, least=least, patches=wanted, octaves=octaves, allow=allow)
    assert coverage.reached(pitch, window, octaves=octaves, allow=allow) == within(window)
    assert coverage.reached(None, 0, allow=allow) == len({patch for patch, _ in left})
    reachable = within(WIDEST)
    enough = min(max(math.ceil(SHARE * reachable), wanted), reachable)
    assert least <= window <= max(least, WIDEST)
    assert within(window) >= enough
    assert window == least or within(window - 1) < enough


def test_coverage_ignores_renders_without_a_pitch() -> None:
    renders = [render(0, 0, 60.0), render(1, 1, math.nan), render(2, 2, 64.2)]
    coverage = Coverage(renders, np.array([0, 1, 2]))
    assert (coverage.lowest, coverage.highest) == (60.0, 64.2)
    assert coverage.window(60.0, least=1, patches=1) == 4
    assert coverage.window(90.0, least=1, patches=1) == 1
