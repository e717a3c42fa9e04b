"""The indexes that ``benchmarks/index.py`` measures, each with its own filter and its own settings."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
for name in THREADS:  # before the libraries are loaded
    os.environ[name] = "1"
os.environ["LANCE_LOG"] = "error"

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from timbrel.library.index import PitchIndex  # noqa: E402

K, WINDOW, RECALL = 10, 1, 0.95
LEAST = 50  # vectors behind a query's gate
OURS, NUMPY = "timbrel", "numpy"
SEED = 20
Answers = list[np.ndarray]


@dataclass
class Library:
    """Vectors float32 [n, d] and semitones [n] (NaN: none); queries [q, d] at theirs; the exact answers."""

    vectors: np.ndarray
    pitches: np.ndarray
    queries: np.ndarray
    asked: np.ndarray
    truth: list[set[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        filed = np.floor(self.pitches + 0.5)
        self.at = np.floor(self.asked + 0.5)
        self.masks = {at: np.abs(filed - at) <= WINDOW for at in np.unique(self.at)}
        self.rows = {at: np.flatnonzero(mask) for at, mask in self.masks.items()}
        self.groups = {at: np.flatnonzero(self.at == at) for at in self.masks}
        self.truth = [set()] * len(self.queries)
        for at, members in self.groups.items():
            products = self.queries[members] @ self.vectors[self.rows[at]].T
            best = np.argpartition(-products, K, axis=1)[:, :K]
            for member, row in zip(members, best, strict=True):
                self.truth[member] = set(self.rows[at][row].tolist())

    def recall(self, answers: Sequence[np.ndarray]) -> float:
        hits = sum(
            len(truth & set(np.asarray(a).tolist())) for truth, a in zip(self.truth, answers, strict=False)
        )
        return hits / (K * len(answers))


@dataclass
class System:
    """One way to search. ``settings`` are tried cheapest first; ``one`` and ``many`` take a setting and give
    the answer to a query by number, or to all of a gate's queries at once. ``queries``: how many are asked.
    """

    name: str
    settings: list[Any]
    one: Callable[[Any, int], np.ndarray]
    many: Callable[[Any, float, np.ndarray], Answers] | None
    build_s: float
    bytes_per_vector: float
    queries: int
    note: str = ""


def clocked(make: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    made = make()
    return made, time.process_time() - start


def systems(library: Library, work: Path, big: bool, few: bool) -> Iterator[System]:
    yield ours(library, work)
    yield brute_force(library)
    yield faiss_ivf(library)
    if few:
        return
    yield lance(library, work)
    yield hnswlib_filter(library, work, big)
    yield faiss_hnsw(library, big)
    yield usearch_overfetch(library, work, big)
    yield by_hand(library, work)


def ours(library: Library, work: Path) -> System:
    index, took = clocked(lambda: PitchIndex.build(library.vectors, library.pitches, encoder="0" * 64))
    index.save(work / "ours")
    size = sum(path.stat().st_size for path in (work / "ours").iterdir())

    def scaled(factor: float) -> PitchIndex:
        plan = index._plan
        cells = min((len(each.centroids) for each in plan.searchers.values()), default=1)
        partitions = tuple(
            replace(
                part,
                efforts=tuple(
                    None if e is None else max(1, min(round(e * factor), cells)) for e in part.efforts
                ),
            )
            for part in plan.partitions
        )
        return PitchIndex(index._store, replace(plan, partitions=partitions), encoder=index.encoder)

    def many(index: PitchIndex, at: float, members: np.ndarray) -> Answers:
        found = index.query_batch(
            library.queries[members], pitches=np.full(len(members), at), window=WINDOW, k=K
        )
        return [each.ids for each in found]

    kinds = [plan.kind for plan in index.plans.values()]
    variants = {factor: scaled(factor) for factor in (0.25, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.5)}
    return System(
        OURS,
        list(variants),
        lambda s, q: variants[s].query(library.queries[q], pitch=library.at[q], window=WINDOW, k=K).ids,
        lambda s, at, members: many(variants[s], at, members),
        took,
        size / len(library.vectors),
        len(library.queries),
        f"automatic plan, target recall .95, partitions by plan: {dict(Counter(kinds))}; the setting scales the "
        "proven efforts",
    )


def brute_force(library: Library) -> System:
    def many(_: Any, at: float, members: np.ndarray) -> Answers:
        rows = library.rows[at]
        products = library.queries[members] @ library.vectors[rows].T
        best = np.argpartition(products, -K, axis=1)[:, -K:]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(products, best, 1), axis=1), 1)
        return list(rows[best])

    asked = min(len(library.queries), 100 if len(library.vectors) > 200_000 else 400)
    return System(
        NUMPY,
        ["exact"],
        lambda _, q: many(None, library.at[q], np.array([q]))[0],
        many,
        0.0,
        library.vectors.shape[1] * 4 + 8,
        asked,
        "rows of each gate known in advance",
    )


def faiss_ivf(library: Library) -> System:
    count, dimension = library.vectors.shape
    lists = {10_000: [64, 128], 100_000: [512, 1024], 1_000_000: [2048, 4096]}.get(count, [1024])
    indexes, took = {}, {}
    for number in lists:

        def make(number: int = number) -> Any:
            index = faiss.index_factory(dimension, f"IVF{number},Flat", faiss.METRIC_INNER_PRODUCT)
            index.cp.niter = 6
            index.train(library.vectors[: 40 * number])
            index.add(library.vectors)
            return index

        indexes[number], took[number] = clocked(make)
    selectors, kept = faiss_selectors(library)
    cache = {
        (number, probes, at): faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        for number in lists
        for probes in (2, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64)
        for at, selector in selectors.items()
    }

    def many(setting: tuple[int, int], at: float, members: np.ndarray) -> Answers:
        found = indexes[setting[0]].search(library.queries[members], K, params=cache[(*setting, at)])
        return list(found[1])

    settings = [(number, probes) for number in lists for probes in (2, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64)]
    return System(
        "faiss IVF, selector",
        settings,
        lambda s, q: indexes[s[0]].search(library.queries[q : q + 1], K, params=cache[(*s, library.at[q])])[
            1
        ][0],
        many,
        max(took.values()),
        dimension * 4 + 8,
        len(library.queries),
        f"IVF-Flat, IDSelectorBitmap of each gate made in advance ({len(kept)} gates); setting (lists, probes)",
    )


def faiss_selectors(library: Library) -> tuple[dict[float, Any], list[np.ndarray]]:
    bits = {at: np.packbits(mask, bitorder="little") for at, mask in library.masks.items()}
    return {at: faiss.IDSelectorBitmap(each) for at, each in bits.items()}, list(bits.values())


def faiss_hnsw(library: Library, big: bool) -> System:
    dimension = library.vectors.shape[1]

    def make() -> Any:
        index = faiss.IndexHNSWFlat(dimension, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 40 if big else 80
        index.add(library.vectors)
        return index

    index, took = clocked(make)
    selectors, kept = faiss_selectors(library)
    efforts = (16, 32, 64, 96, 128, 192, 256, 512)
    cache = {
        (ef, at): faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        for ef in efforts
        for at, selector in selectors.items()
    }
    return System(
        "faiss HNSW, selector",
        list(efforts),
        lambda s, q: index.search(library.queries[q : q + 1], K, params=cache[s, library.at[q]])[1][0],
        lambda s, at, members: list(index.search(library.queries[members], K, params=cache[s, at])[1]),
        took,
        dimension * 4 + 2 * 16 * 4 + 8,
        len(library.queries) // (2 if big else 1),
        f"M 16, efConstruction {index.hnsw.efConstruction}, {len(kept)} selectors made in advance; setting efSearch",
    )


def hnswlib_graph(vectors: np.ndarray, labels: np.ndarray, construction: int) -> Any:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=construction, random_seed=SEED)
    index.set_num_threads(1)
    index.add_items(vectors, labels, num_threads=1)
    return index


def hnswlib_filter(library: Library, work: Path, big: bool) -> System:
    construction = 40 if big else 80
    every = np.arange(len(library.vectors))
    index, took = clocked(lambda: hnswlib_graph(library.vectors, every, construction))
    index.save_index(str(work / "hnswlib.bin"))
    allowed = {at: set(rows.tolist()).__contains__ for at, rows in library.rows.items()}

    def many(ef: int, at: float, members: np.ndarray) -> Answers:
        index.set_ef(ef)
        try:
            return list(index.knn_query(library.queries[members], K, num_threads=1, filter=allowed[at])[0])
        except RuntimeError:  # fewer than K were let through: no answer at this ef
            return [np.empty(0, np.int64)] * len(members)

    return System(
        "hnswlib, filter function",
        [16, 32, 64, 96, 128, 192, 256, 512],
        lambda s, q: many(s, library.at[q], np.array([q]))[0],
        many,
        took,
        (work / "hnswlib.bin").stat().st_size / len(every),
        100,
        f"M 16, ef_construction {construction}, set lookup as the function; setting ef",
    )


def usearch_overfetch(library: Library, work: Path, big: bool) -> System:
    from usearch.index import Index

    def make() -> Any:
        index = Index(
            ndim=library.vectors.shape[1],
            metric="ip",
            dtype="f32",
            connectivity=16,
            expansion_add=40 if big else 80,
        )
        index.add(np.arange(len(library.vectors)), library.vectors, threads=1)
        return index

    index, took = clocked(make)
    index.save(str(work / "usearch.bin"))

    def many(fetch: int, at: float, members: np.ndarray) -> Answers:
        index.expansion_search = fetch
        keys = index.search(library.queries[members], fetch, threads=1).keys.reshape(len(members), -1)
        return [row[library.masks[at][row]][:K] for row in keys.astype(np.int64)]

    return System(
        "usearch, over-fetch",
        [64, 128, 192, 256, 384, 512, 1024],
        lambda s, q: many(s, library.at[q], np.array([q]))[0],
        many,
        took,
        (work / "usearch.bin").stat().st_size / len(library.vectors),
        200,
        "its Python package has no filter: so many are fetched and those outside the gate dropped; setting: how many",
    )


def lance(library: Library, work: Path) -> System:
    import lancedb
    import pyarrow as pa

    count, dimension = library.vectors.shape
    filed = np.nan_to_num(np.floor(library.pitches + 0.5), nan=-1).astype(np.int16)

    def make() -> Any:
        flat = pa.array(library.vectors.ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, dimension)
        data = pa.table({"id": np.arange(count), "semitone": filed, "vector": vectors})
        table = lancedb.connect(work / "lance").create_table(f"n{count}", data, mode="overwrite")
        table.create_index(
            metric="dot",
            vector_column_name="vector",
            index_type="IVF_PQ",
            num_partitions={10_000: 32, 100_000: 256, 1_000_000: 1024}.get(count, 256),
            num_sub_vectors=32,
        )
        table.create_scalar_index("semitone", index_type="BITMAP")
        return table

    table, took = clocked(make)

    def one(setting: tuple[int, int], query: int) -> np.ndarray:
        low, high = int(library.at[query]) - WINDOW, int(library.at[query]) + WINDOW
        asked = table.search(library.queries[query]).distance_type("dot").nprobes(setting[0])
        asked = asked.refine_factor(setting[1]).where(f"semitone BETWEEN {low} AND {high}", prefilter=True)
        return asked.limit(K).select(["id"]).to_arrow()["id"].to_numpy()

    folder = work / "lance" / f"n{count}.lance"
    return System(
        "lancedb, where",
        [(4, 4), (8, 4), (16, 4), (16, 10), (32, 10), (64, 10)],
        one,
        None,
        took,
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / count,
        60,
        "IVF_PQ of 32 sub-vectors, bitmap index on the semitone, prefilter; setting (probes, refine factor)",
    )


def by_hand(library: Library, work: Path) -> System:
    filed = np.floor(library.pitches + 0.5)

    def make() -> dict[float, Any]:
        graphs = {}
        for at in np.unique(filed[np.isfinite(filed)]):
            rows = np.flatnonzero(filed == at)
            graphs[at] = hnswlib_graph(library.vectors[rows], rows, 80)
        return graphs

    graphs, took = clocked(make)

    def many(ef: int, at: float, members: np.ndarray) -> Answers:
        found = []
        for each in range(int(at) - WINDOW, int(at) + WINDOW + 1):
            if each in graphs:
                graphs[each].set_ef(ef)
                count = min(K, graphs[each].get_current_count())
                found.append(graphs[each].knn_query(library.queries[members], count, num_threads=1))
        rows, distances = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
        best = np.argpartition(distances, K - 1, axis=1)[:, :K]
        return list(np.take_along_axis(rows, best, 1).astype(np.int64))

    return System(
        "hnswlib per semitone, by hand",
        [10, 12, 16, 24, 32, 48, 64],
        lambda s, q: many(s, library.at[q], np.array([q]))[0],
        many,
        took,
        library.vectors.shape[1] * 4 + 2 * 16 * 4 + 16,
        len(library.queries),
        "not a peer's own filter: a graph per semitone, three searched, the answers merged; setting ef",
    )
