"""The GPU plans, with a Faiss that pretends: there is no GPU where the tests run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from timbrel.library import gpu, plans
from timbrel.library.index import PitchIndex


class FakeIndex:
    """A GPU index that scans, as CAGRA (train builds) or as IVF-PQ (train, then add)."""

    def __init__(self, resources: object, dimension: int, *rest: Any) -> None:
        self.flat, self.builds = faiss.IndexFlatIP(dimension), len(rest) == 2
        assert rest[-1].use_cuvs

    def train(self, vectors: np.ndarray) -> None:
        if self.builds:
            self.flat.add(vectors)

    def add(self, vectors: np.ndarray) -> None:
        self.flat.add(vectors)

    def search(self, vectors: np.ndarray, k: int, params: Any) -> tuple[np.ndarray, np.ndarray]:
        assert getattr(params, "itopk_size", k) >= k
        found: tuple[np.ndarray, np.ndarray] = self.flat.search(vectors, k)
        return found


def pretended(*, gpus: int = 1, cuvs: bool = True) -> Any:
    return SimpleNamespace(
        StandardGpuResources=object,
        get_num_gpus=lambda: gpus,
        should_use_cuvs=lambda config: cuvs and config.use_cuvs,
        GpuIndexCagra=FakeIndex,
        GpuIndexIVFPQ=FakeIndex,
        GpuIndexCagraConfig=SimpleNamespace,
        GpuIndexIVFPQConfig=SimpleNamespace,
        SearchParametersCagra=SimpleNamespace,
        SearchParametersIVF=SimpleNamespace,
        METRIC_INNER_PRODUCT=faiss.METRIC_INNER_PRODUCT,
    )


@pytest.mark.parametrize(
    ("library", "kinds", "reason"),
    [
        (SimpleNamespace(), (), "no GPU part; install faiss-gpu-cuvs"),
        (pretended(gpus=0), (), "sees no GPU"),
        (pretended(cuvs=False), (), "no cuVS"),
        (pretended(), gpu.KINDS, "sees 1 GPU"),
    ],
)
def test_the_probe_says_what_there_is_and_why_not_more(
    library: Any, kinds: tuple[str, ...], reason: str
) -> None:
    capability = gpu.probe(library)
    assert capability.kinds == kinds
    assert reason in capability.reason


def library() -> tuple[np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(2).standard_normal((400, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.repeat([60.0, 61.0], 200)


@pytest.mark.parametrize("plan", gpu.KINDS)
def test_a_gpu_plan_answers_exactly_what_it_finds_and_is_saved_as_a_scan(
    plan: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    probe, fit = gpu.probe, gpu.fit
    monkeypatch.setattr(gpu, "probe", lambda: probe(pretended()))
    monkeypatch.setattr(gpu, "fit", lambda *rest: fit(*rest, library=pretended()))
    vectors, pitches = library()
    index = PitchIndex.build(vectors, pitches, encoder="e" * 64, plan=plan)
    assert {each.kind for each in index.plans.values()} == {plan}
    exact = PitchIndex.build(vectors, pitches, encoder="e" * 64)
    options: dict[str, Any] = {"pitch": 60, "window": 1, "k": 7}
    wanted = exact.query(vectors[5], **options)
    assert np.array_equal(index.query(vectors[5], **options).ids, wanted.ids)
    index.save(tmp_path)
    loaded = PitchIndex.load(tmp_path)
    assert {each.kind for each in loaded.plans.values()} == {"flat"}
    assert np.array_equal(loaded.query(vectors[5], **options).ids, wanted.ids)


def test_a_searcher_says_what_ran() -> None:
    vectors, pitches = library()
    store = PitchIndex.build(vectors, pitches, encoder="e" * 64)._store
    assert gpu.fit("gpu_cagra", store, [0], library=pretended()).ran == "cuvs"
    assert gpu.fit("gpu_ivf_pq", store, [0], library=pretended(cuvs=False)).ran == "classic"


def test_without_a_gpu_a_gpu_plan_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "probe", lambda: gpu.Capability(0, False, "no GPU is looked for"))
    vectors, pitches = library()
    index = PitchIndex.build(vectors, pitches, encoder="e" * 64, plan="gpu_cagra")
    assert {each.kind for each in index.plans.values()} <= {"flat", plans.BETTER["gpu_cagra"], "ivf_flat"}
