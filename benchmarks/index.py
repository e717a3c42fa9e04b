"""How fast are pitch-gated queries, beside other indexes with their own filters? One thread each.

    pip install --target PEERS -r requirements/benchmarks.in    # the peers, for this benchmark only
    python benchmarks/index.py --peers PEERS [--sizes 1e4 1e5 1e6] [--work build/index_benchmark]

Libraries: stage-1 vectors of data/notes and data/patches by the bundle's encoder, and from 1e5 on others between
them (``extended`` says how), each at its parent's sounding pitch. Queries: notes of instruments held out of the
library, at their own pitch, ± 1 semitone, 10 hits. Each system is tried over its own settings (a curve of recall
against speed); the fastest setting with recall@10 >= .95 is its operating point. Then operating points are
measured in turn, in rounds, one query at a time and, where the system has it, all queries of a gate in one call.

Other work may share the machine, so the speed that is compared is queries per second of the process's CPU time
(all threads, pinned to one core; on an idle core that is wall time); wall time is reported beside it. Each size
is a run of its own whose results are kept in --work, and a size that is there is not measured again.
Writes reports/index.json and reports/index.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from index_systems import (  # sets thread counts first
    LEAST,
    OURS,
    RECALL,
    SEED,
    Answers,
    K,
    Library,
    System,
    systems,
)

import faiss  # isort: skip
import numpy as np  # isort: skip


QUERIES = 5_000  # all that there are, usually: notes of a tenth of the instruments


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
    library, report = library_of(size, work, root, QUERIES)
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
    every = set().union(*(each["systems"] for each in sizes.values()))
    for each in sizes.values():  # with --few
        each["not_measured"] = sorted(every - each["systems"].keys())
    report = {
        "what": "pitch-gated queries (± 1 semitone, 10 hits, recall@10 >= .95), one thread; queries per CPU second, "
        "each system one by one or a gate's queries in one call, whichever is faster",
        "qps_ratio_to_best_peer": {size: each["ratio"]["any"]["median"] for size, each in sizes.items()},
        "sizes": sizes,
    }
    (root / "reports/index.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(report, root / "reports/index.png")
    print(json.dumps(report["qps_ratio_to_best_peer"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
