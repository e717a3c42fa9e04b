"""How fast is a note: the bundle's generator and codec, beside the same network decoded without a cache.

    python benchmarks/generator_speed.py [--repeats 9] [--fresh] [--output reports/speed.json]

Measures the bundle in this checkout beside the weights in data/generator that it was exported from, and writes their
part of reports/speed.json, in about a minute on a quiet machine. Every rival runs on the same number of threads, in
turns, in this one process, a slow one in every third turn; medians are kept. Told for two threads and for one; under
``speed`` for two.

    realtime_factor                seconds of sound per second of computing, a 4-second note from Engine.synthesize:
                                   generator, release, codec decoder, phase
    cache_speedup                  the generator's graph, beside torch that computes the whole prefix for each token
    cache_speedup_token_by_token   the same graph writing one token a turn instead of a block of them
    cache_speedup_torch            torch with the cache, in blocks
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import DataError, TimbrelError
from timbrel.evaluation.report import rounded, update_report
from timbrel.library.bundle import Bundle
from timbrel.pgesam.export import export_generator
from timbrel.pgesam.generator import Generator, load_generator

SECONDS = 4.0
FRAMES = 300
BATCHES = (1, 2, 4, 8, 25)
SAME = 1e-3
SLOW_SECONDS = 0.3
SLOW_TURNS = 3


def medians(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a busy moment of the machine meets them all.

    What takes longer than SLOW_SECONDS takes part in every third turn only.
    """

    def taken(run: Callable[[], object]) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    first = {name: taken(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            if turn % SLOW_TURNS == 0 or first[name] <= SLOW_SECONDS:
                seconds[name].append(taken(run))
    return {name: float(np.median(values)) for name, values in seconds.items()}


@torch.no_grad()
def without_cache(generator: Generator, position: torch.Tensor, pitch: torch.Tensor) -> torch.Tensor:
    """A note [b, frames, 128] token by token, everything written so far computed again for each token."""
    shape = generator.shape
    tokens: list[torch.Tensor] = []
    for count in range(1, shape.tokens + 1):
        prefix = position.new_zeros(len(position), count, shape.token_width)  # sampling hides the past
        tokens.append(generator(prefix, position, pitch)[:, -1])
    return generator.to_frames(torch.stack(tokens, dim=1))[:, : shape.frames]


def notes_for(graph: onnxruntime.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    """The inputs of ``batch`` whole notes; the velocity is the one that torch assumes where none is given."""
    given = {each.name: each.shape for each in graph.get_inputs()}
    dimensions = given["position"][1]
    rng = np.random.default_rng(batch)
    values = {
        "position": rng.uniform(-0.6, 0.6, (batch, dimensions)).astype(np.float32),
        "pitch": np.arange(batch, dtype=np.int64) % 25,
        "velocity": np.full(batch, 100 / 127, dtype=np.float32),
        "frames": np.array([FRAMES], dtype=np.int64),
    }
    return {name: value for name, value in values.items() if name in given}


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the engine's sessions
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure_engine(paths: Mapping[str, Path], threads: int, repeats: int) -> dict[str, float]:
    """A 4-second note whole, and its parts as the engine itself times them."""
    parts: dict[str, list[float]] = {}

    def observe(stage: str, seconds: float) -> None:
        parts.setdefault(stage, []).append(seconds)

    engine = Engine(Bundle.open(Path("bundle")), OnnxModels(paths, threads=threads), observe=observe)
    try:
        whole = medians({"note": lambda: engine.synthesize(x=0.1, y=0.2, pitch=60, seconds=SECONDS)}, repeats)
    finally:
        engine.close()
    return {
        "realtime_factor": SECONDS / whole["note"],
        "note_seconds": whole["note"],
        **{f"{stage}_seconds": float(np.median(values)) for stage, values in parts.items()},
    }


def measure_cache(
    paths: Mapping[str, Path], one_token: Path, generator: Generator, threads: int, repeats: int
) -> dict[str, float]:
    """One note by the shipped graph, by ``one_token`` that writes one a turn, and by torch with and without a cache."""
    torch.set_num_threads(threads)
    shipped = session(paths["generator"], threads)
    feed = notes_for(shipped, 1)
    position, pitch = torch.from_numpy(feed["position"]), torch.from_numpy(feed["pitch"])
    one_a_turn = session(one_token, threads)
    reference = without_cache(generator, position, pitch).numpy()
    rivals = {
        "onnx": lambda: shipped.run(None, feed)[0],
        "onnx_token_by_token": lambda: one_a_turn.run(None, feed)[0],
        "torch_cache": lambda: generator.generate(position, pitch, frames=FRAMES).numpy(),
    }
    differences = {name: float(np.abs(run() - reference).max()) for name, run in rivals.items()}
    if not max(differences.values()) <= SAME:
        raise DataError(
            f"not the note of data/generator ({differences}): the bundle was built from other weights, run make repro"
        )
    slow = {"torch_no_cache": functools.partial(without_cache, generator, position, pitch)}
    seconds = medians({**rivals, **slow}, repeats)
    return {
        "cache_speedup": seconds["torch_no_cache"] / seconds["onnx"],
        "cache_speedup_token_by_token": seconds["torch_no_cache"] / seconds["onnx_token_by_token"],
        "cache_speedup_torch": seconds["torch_no_cache"] / seconds["torch_cache"],
        **{f"generator_{name}_seconds": value for name, value in seconds.items()},
        "largest_difference": max(differences.values()),
    }


def measure_batches(paths: Mapping[str, Path], threads: int, repeats: int) -> dict[str, float]:
    """Notes per second of the generator by batch size."""
    graph = session(paths["generator"], threads)
    runs = {str(batch): functools.partial(graph.run, None, notes_for(graph, batch)) for batch in BATCHES}
    return {name: int(name) / seconds for name, seconds in medians(runs, repeats).items()}


def measure(fresh: bool, repeats: int) -> dict[str, Any]:
    generator, _ = load_generator(Path("data/generator"))
    bundle = Bundle.open(Path("bundle"))
    paths = {name: bundle.path(name) for name in bundle.manifest.models}
    bundle.close()
    threads: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if fresh:
            paths["generator"] = Path(folder) / "generator.onnx"
            export_generator(generator, paths["generator"])
        one_token = Path(folder) / "one_token.onnx"
        export_generator(generator, one_token, block=1)
        for count in (2, 1):
            threads[str(count)] = {
                **measure_engine(paths, count, repeats),
                **measure_cache(paths, one_token, generator, count, repeats),
                "notes_per_second_by_batch": measure_batches(paths, count, repeats),
            }
    names = ("realtime_factor", "cache_speedup", "cache_speedup_token_by_token")
    return {"speed": {name: threads["2"][name] for name in names}, "threads": threads}


def main() -> int:
    """Exit status 1, with one line, when something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--fresh", action="store_true", help="export data/generator now, instead of the bundle's graph"
    )
    parser.add_argument("--output", type=Path, default=Path("reports/speed.json"))
    options = parser.parse_args()
    try:
        report = measure(options.fresh, options.repeats)
    except TimbrelError as error:
        print(f"generator_speed: {error.message}", file=sys.stderr)
        return 1
    update_report(options.output, report)
    print(json.dumps(rounded(report), indent=2))
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
