"""Approximate plans against the exact scan: their recall, their gates, their files, and searching during a swap."""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.errors import BundleError, ConfigurationError, InputError
from timbrel.library import plans
from timbrel.library.index import PitchIndex
from timbrel.library.index_files import SIDECAR, read_sidecar
from timbrel.library.live import LiveIndex
from timbrel.params import Index

ENCODER = "e" * 64
APPROXIMATE = ("hnsw", "ivf_flat", "ivf_sq", "ivf_pq")
TARGET = 0.9


@cache
def library() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """3,000 vectors around 150 timbres, each heard at four semitones or at none; ids in no order."""
    rng = np.random.default_rng(3)
    timbres = rng.standard_normal((150, 24))
    vectors = timbres[rng.integers(0, 150, 3000)] + 0.5 * rng.standard_normal((3000, 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pitches = rng.choice([48.2, 60.0, 60.9, 72.1, np.nan], 3000, p=[0.25, 0.25, 0.25, 0.2, 0.05])
    return vectors.astype(np.float32), pitches, rng.permutation(9000)[:3000].astype(np.int64)


@cache
def built(plan: str) -> PitchIndex:
    vectors, pitches, ids = library()
    return PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids, plan=plan, target_recall=TARGET)


def asked(count: int, seed: int = 0) -> np.ndarray:
    """Queries that are like the library's vectors and none of them."""
    rng = np.random.default_rng((9, seed))
    vectors = library()[0][rng.integers(0, 3000, count)] + 0.05 * rng.standard_normal((count, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("plan", APPROXIMATE)
def test_a_plan_reaches_the_recall_that_it_was_proven_for(plan: str) -> None:
    index = built(plan)
    assert {each.kind for pitch, each in index.plans.items() if pitch} == {plan}
    proven = [each.recalls[0] for each in index.plans.values() if each.kind == plan]
    assert all(recall is not None and recall >= TARGET for recall in proven)
    queries = asked(200)
    for options in ({"pitch": 60.0, "window": 1}, {"pitch": 48.0, "window": 0, "octaves": True}):
        hits = 0
        for vector in queries:
            exact = built("flat").query(vector, k=10, **options)  # type: ignore[arg-type]
            found = index.query(vector, k=10, **options)  # type: ignore[arg-type]
            hits += len(np.intersect1d(exact.ids, found.ids))
            both = np.isin(found.ids, exact.ids)
            assert np.array_equal(found.distances[both], exact.distances[np.isin(exact.ids, found.ids)])
        assert hits / 2000 >= TARGET


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(APPROXIMATE),
    st.one_of(st.none(), st.floats(40, 80)),
    st.integers(0, 13),
    st.integers(1, 700),
    st.booleans(),
    st.booleans(),
    st.integers(0, 999),
)
def test_every_plan_honours_gate_octaves_and_allow(
    plan: str, pitch: float | None, window: int, k: int, octaves: bool, filtered: bool, seed: int
) -> None:
    index, (_, _, ids) = built(plan), library()
    allow = np.random.default_rng(seed).random(ids.max() + 1) < 0.3 if filtered else None
    vector = asked(1, seed)[0]
    options: dict[str, Any] = {"pitch": pitch, "window": window, "k": k, "octaves": octaves, "allow": allow}
    found, exact = index.query(vector, **options), built("flat").query(vector, **options)
    within = index.ids_within(pitch, window, octaves=octaves)
    assert np.isin(found.ids, within).all()
    assert len(np.unique(found.ids)) == len(found.ids)
    assert (np.diff(found.distances) >= 0).all()
    if allow is not None:  # a filter is answered exactly
        assert allow[found.ids].all()
        assert np.array_equal(found.ids, exact.ids)
    if k > plans.DEPTHS[-1]:
        assert np.array_equal(found.ids, exact.ids)


@pytest.mark.parametrize("plan", APPROXIMATE)
def test_a_plan_outlives_its_file(plan: str, tmp_path: Path) -> None:
    index = built(plan)
    index.save(tmp_path)
    loaded = PitchIndex.load(tmp_path, encoder=ENCODER)
    assert loaded.plans == index.plans
    queries = asked(20)
    pitches = np.where(np.arange(20) % 3 == 0, np.nan, 60.4)
    for one, other, vector, pitch in zip(
        loaded.query_batch(queries, pitches=pitches, window=1, k=10),
        index.query_batch(queries, pitches=pitches, window=1, k=10),
        queries,
        pitches,
        strict=True,
    ):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.distances, other.distances)
        alone = index.query(vector, pitch=None if np.isnan(pitch) else pitch, window=1, k=10)
        assert np.array_equal(alone.ids, one.ids)


@pytest.mark.parametrize("plan", APPROXIMATE)
def test_lists_of_another_library_are_refused(plan: str, tmp_path: Path) -> None:
    built(plan).save(tmp_path)
    content = read_sidecar(tmp_path)
    first = content["sections"][2]["name"]
    changes: list[dict[str, Any]] = [
        {"searchers": {}},
        {"searchers": {"ivf_lsh": content["searchers"][plan]}},
        {"sections": [each for each in content["sections"] if each["name"] != first]},
        {
            "sections": [
                each | {"bytes": 40} if each["name"] == first else each for each in content["sections"]
            ]
        },
        {"partitions": [each | {"count": 1} for each in content["partitions"]]},
    ]
    for change in changes:
        (tmp_path / SIDECAR).write_text(json.dumps(content | change))
        with pytest.raises(BundleError, match="cannot be read"):
            PitchIndex.load(tmp_path)


@pytest.mark.parametrize("plan", APPROXIMATE)
def test_ids_outlive_add_remove_and_rebuild(plan: str) -> None:
    index, vector = built(plan), asked(1)[0]
    nearest = int(index.query(vector, pitch=None, window=0, k=1).ids[0])
    grown = index.add(vector[None], np.array([60.3]), np.array([9500]))
    assert grown.query(vector, pitch=60, window=0, k=1).ids.tolist() == [9500]
    again = grown.remove(np.array([9500])).rebuild(plan=plan)
    assert len(again) == 3000
    assert np.array_equal(again.ids_within(None, 0), index.ids_within(None, 0))
    assert again.query(vector, pitch=None, window=0, k=1).ids[0] == nearest
    assert nearest not in again.remove(np.array([nearest])).ids_within(None, 0)


def test_a_plan_that_misses_its_recall_gives_way_to_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = []

    def poor(kind: str, *rest: Any) -> plans.PartitionPlan:
        proofs.append(kind)
        return plans.PartitionPlan(kind) if kind != "ivf_flat" else plans.PartitionPlan(kind, (1, None, None))

    monkeypatch.setattr(plans, "prove", poor)
    vectors, pitches, ids = library()
    index = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids, plan="ivf_pq")
    assert list(dict.fromkeys(proofs)) == ["ivf_pq", "ivf_sq", "ivf_flat"]
    assert {plan.kind for plan in index.plans.values()} == {"ivf_flat"}
    graphs = PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids, plan="hnsw")
    assert {plan.kind for plan in graphs.plans.values()} == {"flat"}
    exact = built("flat").query(vectors[0], pitch=60, window=1, k=5)
    assert np.array_equal(graphs.query(vectors[0], pitch=60, window=1, k=5).ids, exact.ids)


def test_partitions_are_scanned_until_a_gate_opens_thousands() -> None:
    assert plans.choose(plans.FLAT_BELOW - 1, 0.95) == "flat"
    assert plans.choose(plans.FLAT_BELOW, 0.95) == "ivf_sq"
    assert plans.choose(10**6, 1.0) == "flat"
    assert {plan.kind for plan in built("auto").plans.values()} == {"flat"}


def test_params_know_every_plan() -> None:
    assert set(get_args(Index.model_fields["plan"].annotation)) == {"auto", *plans.KINDS}


@pytest.mark.parametrize(("plan", "recall"), [("annoy", 0.9), ("flat", 0.0), ("flat", 1.1)])
def test_an_unknown_plan_is_refused(plan: str, recall: float) -> None:
    vectors, pitches, ids = library()
    with pytest.raises(ConfigurationError, match=r"no index plan 'annoy'|must lie in \(0, 1\]"):
        PitchIndex.build(vectors, pitches, encoder=ENCODER, ids=ids, plan=plan, target_recall=recall)


def test_nothing_is_lost_or_mixed_while_indexes_are_swapped() -> None:
    """Two libraries of disjoint ids take turns; every answer is whole and of one of them."""
    vectors, pitches, _ = library()
    plan = "ivf_sq"
    both = [
        PitchIndex.build(
            vectors,
            pitches,
            encoder=ENCODER,
            ids=np.arange(3000) + 3000 * turn,
            plan=plan,
            target_recall=TARGET,
        )
        for turn in range(2)
    ]
    queries = asked(8)
    wanted = [[index.query(v, pitch=60, window=1, k=9).ids.tolist() for v in queries] for index in both]
    live, done = LiveIndex(both[0]), threading.Event()
    wrong: list[list[int]] = []
    counts = [0] * 4

    def search(worker: int) -> None:
        while not done.is_set():
            for number, vector in enumerate(queries):
                ids = live.query(vector, pitch=60, window=1, k=9).ids.tolist()
                counts[worker] += 1
                if ids not in (wanted[0][number], wanted[1][number]):
                    wrong.append(ids)

    workers = [threading.Thread(target=search, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for turn in range(200):
        live.swap(both[(turn + 1) % 2])
    while min(counts) == 0:
        done.wait(0.01)
    done.set()
    for worker in workers:
        worker.join()
    assert not wrong


def test_changes_made_at_once_all_stay() -> None:
    live = LiveIndex(PitchIndex.build(np.eye(4, dtype=np.float32), np.full(4, 60.0), encoder=ENCODER))

    def add(number: int) -> None:
        live.change(
            lambda index: index.add(np.eye(4, dtype=np.float32)[:1], np.array([61.0]), np.array([number]))
        )

    workers = [threading.Thread(target=add, args=(10 + number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert live.index.ids_within(None, 0).tolist() == [0, 1, 2, 3, *range(10, 18)]


def test_an_index_of_another_encoder_is_not_swapped_in() -> None:
    live = LiveIndex(built("flat"))
    vectors, pitches, ids = library()
    with pytest.raises(InputError, match="cannot replace"):
        live.swap(PitchIndex.build(vectors, pitches, encoder="f" * 64, ids=ids))
    assert live.index is built("flat")
