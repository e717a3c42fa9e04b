"""The compiled search against brute force: what is scanned, what is proposed, and what cells hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.errors import InputError
from timbrel.library import cells, scan
from timbrel.library.index import PitchIndex
from timbrel.library.partitions import Store, file_by_pitch
from timbrel.library.plans import PartitionPlan, Plan

ENCODER = "e" * 64


def store_of(count: int, dimension: int, seed: int, *, distinct: int | None = None) -> Store:
    """``count`` entries at three semitones, of which ``distinct`` vectors differ; ids in no order."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((distinct or count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if distinct:
        vectors = vectors[rng.integers(0, distinct, count)]
    ids = rng.permutation(5 * count)[:count].astype(np.int64)
    return file_by_pitch(vectors, rng.choice([60.0, 61.0, 62.0], count), ids)


def search(
    store: Store,
    queries: np.ndarray,
    k: int,
    slices: np.ndarray = cells.NO_SLICES,
    proposed: np.ndarray = cells.NONE_GIVEN,
    lists: cells.Lists = cells.NO_LISTS,
) -> tuple[int, np.ndarray, np.ndarray]:
    ids = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    short = scan.nearest(store.vectors, store.ids, queries, slices, proposed, *lists, ids, distances)
    return short, ids, distances


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 320),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_scanned_and_proposed_rows_are_answered_as_by_brute_force(
    count: int, dimension: int, k: int, seed: int, repeated: bool
) -> None:
    store = store_of(count, dimension, seed, distinct=max(1, count // 10) if repeated else None)
    rng = np.random.default_rng(seed)
    queries = store_of(3, dimension, seed + 1).vectors
    middle, end = np.sort(rng.integers(0, count + 1, 2))
    slices = np.array([[0, middle], [end, count]])
    proposed = np.stack([rng.permutation(np.r_[middle:end, -1, -1])[: rng.integers(0, 40)] for _ in range(1)])
    proposed = np.ascontiguousarray(np.repeat(proposed, 3, axis=0))
    short, ids, distances = search(store, queries, k, slices, proposed)
    _, everything, far = search(store, queries, count, np.array([[0, count]]))
    fewer = 0
    for number, query in enumerate(queries):
        rows = np.r_[0:middle, end:count, proposed[number][proposed[number] >= 0]]
        held = min(k, len(rows))
        fewer += held < k
        wanted = np.sort(np.maximum(1 - store.vectors[rows] @ query, 0))[:held]
        np.testing.assert_allclose(distances[number, :held], wanted, atol=2e-6)
        distance_of = dict(zip(everything[number].tolist(), far[number].tolist(), strict=True))
        order = sorted((distance_of[entry], entry) for entry in store.ids[rows].tolist())[:held]
        assert ids[number, :held].tolist() == [entry for _, entry in order]
        assert distances[number, :held].tolist() == [distance for distance, _ in order]
        assert (ids[number, held:] == -1).all()
        assert np.isinf(distances[number, held:]).all()
    assert short == fewer


@settings(deadline=None, max_examples=40)
@given(st.integers(70, 400), st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_all_cells_together_hold_everything(count: int, dimension: int, k: int, seed: int) -> None:
    """With every cell read and every entry a candidate, lists answer as the scan does, to the bit."""
    store = store_of(count, dimension, seed)
    members = list(range(len(store.partitions)))
    searcher = cells.fit(store, members)
    lists = searcher.prepare({number: len(searcher.centroids) for number in members})
    queries = store_of(4, dimension, seed + 1).vectors
    _, wanted, far = search(store, queries, count, np.array([[0, count]]))
    _, found, near = search(store, queries, count, lists=lists)
    assert np.array_equal(found, wanted)
    assert np.array_equal(near, far)
    rows = searcher.search(queries, lists, k)
    assert rows.shape == (4, k)
    taken = rows[:, : min(k, count)]
    assert ((taken >= 0) & (taken < count)).all()
    assert (rows[:, count:] == -1).all()


def test_equal_vectors_are_equally_far_however_they_are_searched() -> None:
    """One vector at three semitones: one partition is scanned, one in cells, one in Faiss' lists."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((300, 37)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    thrice = np.tile(vectors, (3, 1))
    pitches = np.repeat([60.0, 61.0, 62.0], 300)
    built = {
        kind: PitchIndex.build(thrice, pitches, encoder=ENCODER, plan=kind, target_recall=0.5)
        for kind in ("flat", "ivf_sq", "ivf_flat")
    }
    store = built["flat"]._store
    most = (2, None, None)
    plan = Plan(
        (PartitionPlan("flat"), PartitionPlan("ivf_sq", most), PartitionPlan("ivf_flat", most)),
        {kind: built[kind]._plan.searchers[kind] for kind in ("ivf_sq", "ivf_flat")},
    )
    mixed = PitchIndex(store, plan, encoder=ENCODER)
    threes = 0
    for vector in vectors[:50]:
        found = mixed.query(vector, pitch=61, window=1, k=9)
        by_vector: dict[int, set[float]] = {}
        for entry, distance in zip(found.ids.tolist(), found.distances.tolist(), strict=True):
            by_vector.setdefault(entry % 300, set()).add(distance)
        assert all(len(each) == 1 for each in by_vector.values())
        everything = built["flat"].query(vector, pitch=61, window=1, k=9)
        assert np.array_equal(everything.ids[:3], found.ids[:3])
        assert np.array_equal(everything.distances[:3], found.distances[:3])
        allowed = np.ones(900, bool)
        filtered = mixed.query(vector, pitch=61, window=1, k=9, allow=allowed)
        assert np.array_equal(filtered.ids, everything.ids)
        assert np.array_equal(filtered.distances, everything.distances)
        threes += len(found.ids) == 9
    assert threes == 50


def test_one_query_of_a_batch_that_is_not_normalised_is_refused() -> None:
    store = store_of(200, 8, 0)
    queries = store.vectors[:4].copy()
    queries[2] *= 2
    assert search(store, queries, 3, np.array([[0, 200]]))[0] == -3
    queries[2] = np.nan
    assert search(store, queries, 3, np.array([[0, 200]]))[0] == -3
    index = PitchIndex(store, Plan((PartitionPlan("flat"),) * 3, {}), encoder=ENCODER)
    with pytest.raises(InputError, match="not finite"):
        index.query_batch(queries, pitches=[60.0] * 4, window=1, k=3)


def test_queries_may_be_read_only_or_lie_apart() -> None:
    store = store_of(200, 8, 0)
    index = PitchIndex(store, Plan((PartitionPlan("flat"),) * 3, {}), encoder=ENCODER)
    wanted = index.query(store.vectors[3].copy(), pitch=None, window=0, k=5)
    fixed = store.vectors[3].copy()
    fixed.flags.writeable = False
    apart = np.repeat(store.vectors[3], 2)[::2]
    for vector in (fixed, apart):
        assert np.array_equal(index.query(vector, pitch=None, window=0, k=5).ids, wanted.ids)
    assert wanted.ids[0] == store.ids[3]


def test_codes_lie_in_blocks_component_by_component() -> None:
    laid = cells.blocks(np.arange(34, dtype=np.int8).reshape(17, 2))
    assert laid.tolist() == [*range(0, 32, 2), *range(1, 32, 2), 32, *[0] * 15, 33, *[0] * 15]


def test_a_forgotten_partition_leaves_the_others_as_they_were() -> None:
    store = store_of(500, 12, 1)
    whole, less = cells.fit(store, [0, 1, 2]), cells.fit(store, [0, 1, 2])
    less.forget(1)
    queries = store_of(5, 12, 9).vectors
    for number in (0, 2):
        assert np.array_equal(
            less.search(queries, less.prepare({number: 2}), 8),
            whole.search(queries, whole.prepare({number: 2}), 8),
        )
    with pytest.raises(ValueError, match="1 is not in list"):
        less.prepare({1: 1})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rows", lambda rows: rows[::-1], "do not hold partition"),
        ("rows", lambda rows: rows + np.int32(10**6), "do not hold partition"),
        ("sizes", lambda sizes: np.roll(sizes, 1) * np.int32(2), "codes"),
        ("sizes", lambda sizes: sizes[1:], "lists of"),
        ("codes", lambda codes: codes[1:], "codes"),
        ("steps", lambda steps: steps[1:], "components"),
    ],
)
def test_lists_whose_parts_do_not_belong_together_are_refused(name: str, change: Any, message: str) -> None:
    """Compiled code would read what lies beyond an array."""
    store = store_of(500, 12, 1)
    searcher = cells.fit(store, [0, 2])

    def kept(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array).view(np.uint8).ravel()

    arrays = {key: kept(array) for key, array in searcher.arrays().items()}
    assert np.array_equal(cells.restore(searcher.layout(), arrays, store).codes, searcher.codes)
    arrays[f"ivf_sq.{name}"] = kept(change(searcher.arrays()[f"ivf_sq.{name}"]))
    with pytest.raises(ValueError, match=message):
        cells.restore(searcher.layout(), arrays, store)


def test_without_a_folder_for_it_the_search_is_compiled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def refuses(**options: Any) -> Any:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return lambda function: function

    monkeypatch.setattr(scan, "njit", refuses)
    assert scan._kept(len) is len
    assert asked == [{"nogil": True, "cache": True}, {"nogil": True}]
