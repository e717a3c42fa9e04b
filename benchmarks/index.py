"""How fast are pitch-gated queries, beside other indexes with their own filters? One thread each.

    pip install --target PEERS hnswlib usearch lancedb    # the peers, for this benchmark only
    python benchmarks/index.py --peers PEERS [--sizes 1e4 1e5 1e6] [--work build/index_benchmark]

Libraries: stage-1 vectors of data/notes and data/patches by the bundle's encoder, and from 1e5 on others between
them (``extended`` says how), each at its parent's sounding pitch. Queries: notes of instruments held out of the
library, at their own pitch, ± 1 semitone, 10 hits. Each system is tried over its own settings (a curve of recall
against speed); the fastest setting with recall@10 >= .95 is its operating point. Then operating points are
measured in turn, in rounds, one query at a time and, where the system has it, all queries of a gate in one call.

Other work may share the machine, so the speed that is compared is queries per second of the process's CPU time
(all threads, pinned to one core; on an idle core that is wall time); wall time is reported beside it. Each size
is a run of its own whose results are kept in --work, and a size that is there is not measured again.
Writes reports/index.json and reports/figures/index.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
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


def embedded(work: Path, root: Path) -> dict[str, np.ndarray]:
    """``v`` float32 [n, d], ``f0`` MIDI [n], ``inst`` str [n] of data/notes and data/patches; kept in ``work``."""
    kept = work / "real.npz"
    if not kept.is_file():
        from timbrel.encoders import frontend
        from timbrel.engine.onnx_models import OnnxModels
        from timbrel.notes.noteset import NoteSet

        models = OnnxModels({"timbre_encoder": root / "bundle/models/timbre_encoder.onnx"}, threads=1)
        columns: dict[str, list[Any]] = {"v": [], "f0": [], "inst": []}
        for source in ("notes", "patches"):
            notes = NoteSet.open(root / "data" / source)
            for start in range(0, len(notes), 32):
                rows = range(start, min(start + 32, len(notes)))
                clips = np.stack([frontend.clip(audio) for audio in notes.float_audio(rows)])
                columns["v"].append(models.run("timbre_encoder", {"audio": clips})["stage1"])
                columns["f0"] += [notes.notes[row].f0_midi for row in rows]
                columns["inst"] += [notes.notes[row].instrument for row in rows]
        np.savez(kept, v=np.concatenate(columns["v"]), f0=columns["f0"], inst=columns["inst"])
    return dict(np.load(kept))


def neighbours(vectors: np.ndarray, count: int = 16) -> np.ndarray:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return flat.search(vectors, count + 1)[1][:, 1:]


def extended(
    vectors: np.ndarray, near: np.ndarray, count: int, spread: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` vectors between real ones, and the rows of their parents.

    A parent drawn at random, a step of random length (0..1) towards one of its 16 nearest neighbours, and Gaussian
    noise with the covariance of these neighbours times ``spread`` squared; l2-normalised.
    """
    parents = rng.integers(0, len(vectors), count)
    made = np.empty((count, vectors.shape[1]), np.float32)
    for start in range(0, count, 20_000):
        some = parents[start : start + 20_000]
        around = near[some]
        towards = around[np.arange(len(some)), rng.integers(0, around.shape[1], len(some))]
        weights = rng.standard_normal(around.shape, dtype=np.float32)
        weights -= weights.mean(axis=1, keepdims=True)
        noise = (weights[:, None] @ vectors[around])[:, 0] / np.sqrt(around.shape[1])
        step = rng.random((len(some), 1), dtype=np.float32)
        new = vectors[some] + step * (vectors[towards] - vectors[some]) + spread * noise
        made[start : start + 20_000] = new / np.linalg.norm(new, axis=1, keepdims=True)
    return made, parents


def fitted_spread(
    vectors: np.ndarray, owners: np.ndarray, queries: np.ndarray, rng: np.random.Generator
) -> tuple[float, dict[str, Any]]:
    """The noise with which half of the instruments, extended to the size of all, lie as far from the queries as all
    do: median distance of the nearest and of the tenth.
    """

    def medians(library: np.ndarray) -> np.ndarray:
        flat = faiss.IndexFlatIP(library.shape[1])
        flat.add(library)
        return np.median(1 - flat.search(queries, K)[0][:, [0, K - 1]], axis=0)

    names = np.unique(owners)
    half = np.isin(owners, rng.permutation(names)[: len(names) // 2])
    wanted = medians(vectors)
    near = neighbours(vectors[half])
    tried = {}
    for spread in (0.0, 1.0, 2.0, 3.0):
        made, _ = extended(vectors[half], near, int((~half).sum()), spread, rng)
        tried[spread] = medians(np.concatenate([vectors[half], made]))
    best = min(tried, key=lambda each: float(np.abs(np.log(tried[each] / wanted)).sum()))
    return best, {
        "real": wanted.round(4).tolist(),
        **{f"spread {each:g}": medians.round(4).tolist() for each, medians in tried.items()},
    }


def library_of(size: int, work: Path, root: Path, asked: int) -> tuple[Library, dict[str, Any]]:
    real = embedded(work, root)
    rng = np.random.default_rng(SEED)
    names = np.unique(real["inst"])
    held_out = np.isin(real["inst"], rng.permutation(names)[: len(names) // 10])
    pitched = held_out & np.isfinite(real["f0"])
    vectors, pitches, owners = (real[key][~held_out] for key in ("v", "f0", "inst"))
    vectors = vectors.astype(np.float32)
    queries = rng.permutation(np.flatnonzero(pitched))
    spread_file = work / "spread.json"
    if not spread_file.is_file():
        best, tried = fitted_spread(vectors, owners, real["v"][queries[:1000]], rng)
        spread_file.write_text(json.dumps({"spread": best, "median distance of 1st and 10th": tried}))
    spread = json.loads(spread_file.read_text())
    rng = np.random.default_rng(SEED + size)
    if size <= len(vectors):
        some = rng.permutation(len(vectors))[:size]
        vectors, pitches, made = vectors[some], pitches[some], 0
    else:
        made = size - len(vectors)
        more, parents = extended(vectors, neighbours(vectors), made, spread["spread"], rng)
        vectors, pitches = np.concatenate([vectors, more]), np.concatenate([pitches, pitches[parents]])
        order = rng.permutation(size)
        vectors, pitches = vectors[order], pitches[order]
    # A gate that leaves a handful asks nothing of an index.
    counts = np.bincount(np.floor(pitches[np.isfinite(pitches)] + 0.5).astype(int), minlength=140)
    at = np.floor(real["f0"][queries] + 0.5).astype(int)
    queries = queries[counts[at - 1] + counts[at] + counts[at + 1] >= LEAST][:asked]
    library = Library(vectors, pitches, real["v"][queries].astype(np.float32), real["f0"][queries])
    left = [len(library.rows[at]) / size for at in library.at]
    about = {
        "vectors": size,
        "real": size - made,
        "generated": made,
        "dimension": vectors.shape[1],
        "queries": len(queries),
        "gate_leaves_mean_share": round(float(np.mean(left)), 4),
        "generator": spread,
    }
    return library, about


def pin() -> None:
    """Every thread of this process to one core; lancedb cannot build on one, so only what is asked is pinned."""
    core = min(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def unpin(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


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
        partitions = tuple(
            replace(
                part,
                efforts=tuple(
                    None if e is None else max(1, min(round(e * factor), 512)) for e in part.efforts
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


def timed(system: System, setting: Any, library: Library, batch: bool) -> dict[str, Any]:
    """Queries per second of CPU and of wall time, recall, and the single queries' latencies in ms."""
    answers: Answers = [np.empty(0)] * system.queries
    latencies = []
    cpu, wall = time.process_time(), time.perf_counter()
    if batch:
        assert system.many is not None
        for at, members in library.groups.items():
            some = members[members < system.queries]
            if len(some):
                for member, answer in zip(some, system.many(setting, at, some), strict=True):
                    answers[member] = answer
    else:
        for query in range(system.queries):
            start = time.perf_counter()
            answers[query] = system.one(setting, query)
            latencies.append(time.perf_counter() - start)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    result = {
        "setting": setting,
        "recall": round(library.recall(answers), 4),
        "qps": round(system.queries / cpu, 1),
        "qps_wall": round(system.queries / wall, 1),
    }
    if latencies:
        p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
        result |= {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}
    return result


def measure(size: int, work: Path, root: Path, rounds: int, few: bool) -> dict[str, Any]:
    big = size > 200_000
    cores = os.sched_getaffinity(0)
    work.mkdir(parents=True, exist_ok=True)
    library, report = library_of(size, work, root, 1000)
    report |= {"systems": {}, "rounds": rounds, "load_average_before": os.getloadavg()[0]}
    points: list[tuple[System, Any, bool]] = []
    for system in systems(library, work, big, few):
        entry: dict[str, Any] = {"note": system.note}
        curve = []
        pin()
        for setting in system.settings:
            timed_once = [timed(system, setting, library, batch=False)]
            if system.many is not None:
                timed_once.append(timed(system, setting, library, batch=True) | {"batch": True})
            curve += timed_once
        enough = [point for point in curve if point["recall"] >= RECALL]
        entry |= {
            "build_cpu_s": round(system.build_s, 2),
            "bytes_per_vector": round(system.bytes_per_vector, 1),
            "curve": curve,
        }
        report["systems"][system.name] = entry
        for batch in (False, True):
            fast = [point for point in enough if point.get("batch", False) == batch]
            if fast:
                points.append((system, max(fast, key=lambda point: point["qps"])["setting"], batch))
        unpin(cores)
        print(size, system.name, max((p["qps"] for p in enough), default=None), flush=True)
    measured: list[dict[tuple[str, bool], dict[str, Any]]] = []
    pin()
    for _ in range(rounds):
        measured.append({(s.name, batch): timed(s, setting, library, batch) for s, setting, batch in points})
    for system, setting, batch in points:
        each = [turn[system.name, batch] for turn in measured]
        report["systems"][system.name]["batch" if batch else "single"] = {
            "setting": setting,
            **{
                key: round(float(np.median([one[key] for one in each])), 4)
                for key in each[0]
                if key != "setting"
            },
        }
    report["ratio"] = {
        "any": ratio(measured, None, "qps"),
        "any_wall": ratio(measured, None, "qps_wall"),
        "single": ratio(measured, False, "qps"),
        "batch": ratio(measured, True, "qps"),
    }
    unpin(cores)
    report["load_average_after"] = os.getloadavg()[0]
    return report


def ratio(
    measured: list[dict[tuple[str, bool], dict[str, Any]]], batch: bool | None, key: str
) -> dict[str, Any]:
    """Ours over the best peer's queries per second, in each round; each in its faster way, or in the one asked for."""
    ratios, best = [], []
    for turn in measured:
        ours = max(each[key] for (name, way), each in turn.items() if name == OURS and batch in (None, way))
        peers = {
            name: each[key]
            for (name, way), each in sorted(turn.items(), key=lambda item: item[1][key])
            if name != OURS and not name.endswith("by hand") and batch in (None, way)
        }
        best.append(max(peers, key=lambda name: peers[name]))
        ratios.append(ours / peers[best[-1]])
    return {
        "median": round(float(np.median(ratios)), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
        "best_peer": max(set(best), key=best.count),
    }


def plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = report["sizes"]
    figure, axes = plt.subplots(1, len(sizes), figsize=(4.6 * len(sizes), 4.4), squeeze=False, sharex=True)
    for axis, each in zip(axes[0], sizes.values(), strict=True):
        for number, (name, system) in enumerate(each["systems"].items()):
            batch = any(point.get("batch") for point in system["curve"])
            some = sorted(
                (p["recall"], p["qps"])
                for p in system["curve"]
                if p.get("batch", False) == batch and p["recall"] > 0.6
            )
            front = [p for p in some if not any(q[0] >= p[0] and q[1] > p[1] for q in some)]
            if front:
                axis.plot(
                    *zip(*front, strict=True), marker="o", ms=3.5, lw=1.4, color=f"C{number}", label=name
                )
        axis.axvline(RECALL, color="0.6", lw=0.8, ls=":")
        axis.set(yscale="log", title=f"{each['vectors']:,} vectors", xlabel="recall@10", xlim=(0.6, 1.005))
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("queries per CPU second, one thread")
    axes[0][-1].legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, help="folder that the peers were installed into")
    parser.add_argument("--sizes", nargs="+", default=["1e4", "1e5", "1e6"])
    parser.add_argument("--work", type=Path, default=Path("build/index_benchmark"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--few", action="store_true", help="only the scan and faiss IVF as peers: minutes, not hours"
    )
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    faiss.omp_set_num_threads(1)
    root = Path.cwd()
    options.work.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        kept = options.work / f"{size}.json"
        if not kept.is_file():
            kept.write_text(
                json.dumps(measure(int(float(size)), options.work, root, options.rounds, options.few))
            )
    done = {size: options.work / f"{size}.json" for size in ("1e4", "1e5", "1e6")}
    sizes = {size: json.loads(path.read_text()) for size, path in done.items() if path.is_file()}
    report = {
        "what": "pitch-gated queries (± 1 semitone, 10 hits, recall@10 >= .95), one thread; queries per CPU second, "
        "each system one by one or a gate's queries in one call, whichever is faster",
        "qps_ratio_to_best_peer": {size: each["ratio"]["any"]["median"] for size, each in sizes.items()},
        "sizes": sizes,
    }
    (root / "reports/index.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, root / "reports/figures/index.png")
    print(json.dumps(report["qps_ratio_to_best_peer"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
