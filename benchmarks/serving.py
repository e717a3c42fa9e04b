"""How fast is the service, beside its engine in one process, and beside the plain server one would write instead?

    python benchmarks/serving.py [--rounds 5] [--seconds 2] [--clients 1 8 32]

Search (2-second recordings, WAV) and synthesize (2-second notes) over loopback, on the bundle in this checkout:

    triton       `timbrel serve` as it starts by itself where Triton's wheel can run; HTTP and gRPC
    onnxruntime  the same with TIMBREL_ENGINE=inprocess: the models run in the workers; HTTP and gRPC
    plain        serving_plain.py: FastAPI and onnxruntime in one process, the same answers (compared first); HTTP
    in process   the engine called directly, file in and file out: one process, and as many as there are cores

All run at the same time and are asked in turns, each cell some seconds in every round, so that a busy moment of the
machine meets them all; ratios are taken within a round, and told as the rounds' median with the smallest and largest.
The load is a process of its own (serving_load.py), and what it can do is measured first. ``cpu_ms`` is what a server's
processes compute for an answer: cores / cpu_ms is all that this machine could ever answer.
At last more clients than the service takes: how soon does it say so?

Writes reports/serving.json and reports/serving.png. Other work on the machine blurs it: stop that first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import soundfile
from serving_load import OK, Load, Measured, put, trivial_grpc, trivial_http

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.serving import Serving, free_ports  # noqa: E402

from timbrel import audio  # noqa: E402
from timbrel.engine.engine import Engine  # noqa: E402
from timbrel.engine.onnx_models import OnnxModels  # noqa: E402
from timbrel.evaluation.report import write_report  # noqa: E402
from timbrel.library.bundle import Bundle  # noqa: E402
from timbrel.v1 import timbrel_pb2 as pb  # noqa: E402

OPERATIONS = ("search", "synthesize")
QUESTIONS = 16
SECONDS = 2.0
OVERLOAD_CLIENTS = 128
START_SECONDS = 240.0
_BOUNDARY = "timbrel"
_CONTENT_TYPES = {"search": f"multipart/form-data; boundary={_BOUNDARY}", "synthesize": "application/json"}


def questions(engine: Engine) -> tuple[list[bytes], list[dict[str, Any]]]:
    """WAV files to search with, and notes to synthesize: the former are the latter's sound."""
    rng = np.random.default_rng(10)
    limits = engine.bundle.manifest.map
    notes = []
    for _ in range(QUESTIONS):
        x, y = rng.uniform(-0.6 * limits.radius, 0.6 * limits.radius, 2)
        key = int(rng.integers(limits.pitch_low, limits.pitch_high + 1))
        notes.append({"x": float(x), "y": float(y), "pitch": key, "seconds": SECONDS})
    return [audio.wav_bytes(engine.synthesize(**note)) for note in notes], notes


def bodies(wavs: Sequence[bytes], notes: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[bytes]]:
    """What is sent, by transport and operation."""
    head = (
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="audio"; filename="clip.wav"\r\n\r\n'.encode()
    )
    foot = f"\r\n--{_BOUNDARY}--\r\n".encode()
    searches = [pb.SearchRequest(recordings=pb.Recordings(audio=[wav])) for wav in wavs]
    return {
        ("http", "search"): [head + wav + foot for wav in wavs],
        ("http", "synthesize"): [json.dumps(note).encode() for note in notes],
        ("grpc", "search"): [each.SerializeToString() for each in searches],
        ("grpc", "synthesize"): [pb.SynthesizeRequest(**note).SerializeToString() for note in notes],
    }


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load. ``address`` by transport; ``pid`` is that of its first process."""

    name: str
    address: Mapping[str, str]
    pid: int

    def cpu_seconds(self) -> float:
        """What its processes have computed so far."""
        leader = psutil.Process(self.pid)
        total = 0.0
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextlib.contextmanager
def targets(bundle: Path, folder: Path) -> Iterator[list[Target]]:
    """All servers, started and ready."""
    with contextlib.ExitStack() as stack:
        started = {}
        # One after the other: each imports for as long as the cores let it.
        for name, engine in (("triton", "auto"), ("onnxruntime", "inprocess")):
            started[name] = Serving.start(bundle, folder / name, engine=engine)
            stack.callback(started[name].stop)
            print(f"{name}: {started[name].wait_ready().lines()[-1]}", flush=True)
        port = free_ports().http
        plain = stack.enter_context(_plain(bundle, port))
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        yield [
            *(
                Target(name, {"http": each.url, "grpc": each.grpc_target}, each.process.pid)
                for name, each in started.items()
            ),
            Target("plain", {"http": url}, plain.pid),
        ]


@contextlib.contextmanager
def _plain(bundle: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uvicorn", "serving_plain:app", "--port", str(port)]
    command += ["--log-level", "warning", "--app-dir", str(Path(__file__).parent)]
    process = subprocess.Popen(command, env={**os.environ, "TIMBREL_BUNDLE": str(bundle)})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if answers():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("the plain server does not answer")
        time.sleep(0.2)


class _InProcess:
    """The engine in a process of the pool's, and what it is asked."""

    engine: Engine
    wavs: list[bytes]
    notes: list[dict[str, Any]]

    @classmethod
    def open(cls, bundle: Path) -> None:
        opened = Bundle.open(bundle)
        models = OnnxModels({name: opened.path(name) for name in opened.manifest.models})
        cls.engine = Engine(opened, models)
        cls.wavs, cls.notes = questions(cls.engine)

    @classmethod
    def given(cls) -> tuple[list[bytes], list[dict[str, Any]]]:
        return cls.wavs, cls.notes

    @classmethod
    def answer(cls, operation: str, number: int) -> Any:
        number %= QUESTIONS
        if operation == "search":
            return cls.engine.search(audio.read(cls.wavs[number]))
        return audio.wav_bytes(cls.engine.synthesize(**cls.notes[number]))

    @classmethod
    def run(cls, operation: str, seconds: float) -> Measured:
        """As ``serving_load.put``, without a service."""
        measured = Measured()
        for number in range(3):
            cls.answer(operation, number)
        cpu, begin, number = time.process_time(), time.perf_counter(), 0
        while (sent := time.perf_counter()) < begin + seconds:
            cls.answer(operation, number)
            measured.latencies.append(time.perf_counter() - sent)
            number += 1
        measured.answered_per_second = number / (time.perf_counter() - begin)
        measured.cpu_ms = 1e3 * (time.process_time() - cpu) / number
        return measured


def same_answers(every: Sequence[Target], local: Executor) -> dict[str, Any]:
    """Whether all give what the engine gives: the best hits, and the samples of notes."""
    wavs, notes = local.submit(_InProcess.given).result()
    engine_hits = [
        [hit.patch_id for hit in local.submit(_InProcess.answer, "search", number).result().hits]
        for number in range(len(wavs))
    ]
    engine_notes = [local.submit(_InProcess.answer, "synthesize", n).result() for n in range(len(notes))]
    report: dict[str, Any] = {"questions": len(wavs)}
    for target in every:
        with httpx.Client(base_url=target.address["http"], timeout=60) as http:
            top = whole = 0
            for wav, expected in zip(wavs, engine_hits, strict=True):
                hits = (
                    http.post("/search", files={"audio": ("clip.wav", wav)}).raise_for_status().json()["hits"]
                )
                found = [hit["patch_id"] for hit in hits]
                top += found[:1] == expected[:1]
                whole += found == expected
            differences = [
                np.abs(
                    _samples(http.post("/synthesize", json=note).raise_for_status().content) - _samples(wav)
                ).max()
                for note, wav in zip(notes, engine_notes, strict=True)
            ]
        report[target.name] = {
            "best_hit_equal": top,
            "ten_hits_equal": whole,
            "largest_sample_difference": float(max(differences)),
        }
    return report


def _samples(wav: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(wav), dtype="float32")[0]


def capacity(
    pool: Executor, sent: Mapping[tuple[str, str], list[bytes]], clients: int, seconds: float
) -> dict[str, Any]:
    """What the load itself can do, on servers that answer at once with as many bytes."""
    report = {}
    sizes = {"search": 4_000, "synthesize": round(48_000 * SECONDS)}
    for operation in OPERATIONS:
        for transport, trivial in (("http", trivial_http), ("grpc", trivial_grpc)):
            with trivial(sizes[operation]) as address:
                target = Target("trivial", {transport: address}, os.getpid())
                done = pool.submit(
                    put, _load(target, transport, operation, clients, seconds), sent[transport, operation]
                )
                measured = done.result()
            report[f"{operation} {transport}"] = {
                "answers_per_second": measured.answered_per_second,
                "load_cpu_ms": measured.cpu_ms,
            }
    return report


def _load(target: Target, transport: str, operation: str, clients: int, seconds: float) -> Load:
    method = f"/timbrel.v1.Timbrel/{operation.capitalize()}"
    name = f"/{operation}" if transport == "http" else method
    return Load(transport, target.address[transport], name, _CONTENT_TYPES[operation], clients, seconds)


Cells = dict[tuple[str, int, str], list[dict[str, Any]]]
"""By operation, clients and way: what was measured in each round."""


def measure(
    every: Sequence[Target],
    pool: Executor,
    local: Sequence[Executor],
    sent: Mapping[tuple[str, str], list[bytes]],
    options: argparse.Namespace,
) -> Cells:
    cells: Cells = {}
    began = time.monotonic()
    for number in range(options.rounds):
        for operation in OPERATIONS:
            runs = [each.submit(_InProcess.run, operation, options.seconds) for each in local[:1]]
            _keep(cells, (operation, 1, "in process"), [each.result() for each in runs])
            runs = [each.submit(_InProcess.run, operation, options.seconds) for each in local]
            _keep(cells, (operation, len(local), "in processes"), [each.result() for each in runs])
            for clients in options.clients:
                for target in every[number % len(every) :] + every[: number % len(every)]:
                    for transport in target.address:
                        load = _load(target, transport, operation, clients, options.seconds)
                        cpu, asked = target.cpu_seconds(), time.perf_counter()
                        measured = pool.submit(put, load, sent[transport, operation]).result()
                        cores = (target.cpu_seconds() - cpu) / (time.perf_counter() - asked)
                        way = f"{target.name} {transport}"
                        _keep(cells, (operation, clients, way), [measured], cores)
        print(f"round {number + 1} of {options.rounds}, {time.monotonic() - began:.0f} s", flush=True)
    return cells


def _keep(
    cells: Cells, cell: tuple[str, int, str], runs: Sequence[Measured], cores: float | None = None
) -> None:
    """``cores``: how many the server's processes kept busy."""
    rate = sum(run.answered_per_second for run in runs)
    cpu_ms = runs[0].cpu_ms if cores is None else 1e3 * cores / max(rate, 1e-9)
    outcomes = sum((run.outcomes for run in runs[1:]), runs[0].outcomes)
    cells.setdefault(cell, []).append(
        {
            "latencies": [each for run in runs for each in run.latencies],
            "rate": rate,
            "cpu_ms": cpu_ms,
            "cores": cores if cores is not None else len(runs),
            "load_cpu_ms": runs[0].cpu_ms if cores is not None else 0.0,
            "refused": sum(count for name, count in outcomes.items() if name != OK),
        }
    )


def overload(
    target: Target, pool: Executor, sent: Mapping[tuple[str, str], list[bytes]], seconds: float
) -> dict[str, Any]:
    """More clients than there are places."""
    report = {}
    for transport in target.address:
        load = _load(target, transport, "synthesize", OVERLOAD_CLIENTS, seconds)
        measured = pool.submit(put, load, sent[transport, "synthesize"]).result()
        report[transport] = {
            "outcomes": dict(measured.outcomes),
            "refused_ms": percentiles(measured.refusals),
            "answered_ms": percentiles(measured.latencies),
            "answered_per_second": measured.answered_per_second,
        }
    return report


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds; none of nothing."""
    if not seconds:
        return {}
    values = np.percentile(1e3 * np.array(seconds), (50, 95, 99))
    return dict(zip(("p50", "p95", "p99"), map(float, values), strict=True))


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "least": float(min(values)), "most": float(max(values))}


def summary(cells: Cells, clients: Sequence[int]) -> dict[str, Any]:
    """Every cell, its percentiles over all rounds; and the ratios that the goals are about."""
    table: dict[str, Any] = {}
    for (operation, count, way), rounds in cells.items():
        table.setdefault(operation, {}).setdefault(way, {})[str(count)] = {
            "ms": percentiles([each for one in rounds for each in one["latencies"]]),
            "p50_ms": spread([percentiles(one["latencies"])["p50"] for one in rounds if one["latencies"]]),
            "answers_per_second": spread([one["rate"] for one in rounds]),
            "cpu_ms": float(np.median([one["cpu_ms"] for one in rounds])),
            "cores": float(np.median([one["cores"] for one in rounds])),
            "load_cpu_ms": float(np.median([one["load_cpu_ms"] for one in rounds])),
            "refused": sum(one["refused"] for one in rounds),
        }
    ways = sorted({way for _, _, way in cells if not way.startswith("in process")})
    most = max(clients)
    goals: dict[str, Any] = {
        "p50_to_in_process_at_1_client": {},
        f"throughput_to_plain_at_{most}_clients": {},
    }
    latency, throughput = goals.values()
    for operation in OPERATIONS:
        alone, plain = cells[operation, 1, "in process"], cells[operation, most, "plain http"]
        both = next(
            rounds for (op, _, way), rounds in cells.items() if (op, way) == (operation, "in processes")
        )
        latency[operation] = {
            way: spread([
                percentiles(ours["latencies"])["p50"] / percentiles(theirs["latencies"])["p50"]
                for ours, theirs in zip(cells[operation, 1, way], alone, strict=True)
            ])
            for way in ways
            if 1 in clients
        }  # fmt: skip
        compared = {way: cells[operation, most, way] for way in ways if way != "plain http"}
        throughput[operation] = {
            way: spread([ours["rate"] / theirs["rate"] for ours, theirs in zip(rounds, plain, strict=True)])
            for way, rounds in {**compared, "the engine alone on every core": both}.items()
        }
    return {"goals": goals, "table": table}


def plot(report: Mapping[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(OPERATIONS), figsize=(9, 6), sharex=True)
    for column, operation in enumerate(OPERATIONS):
        table = report["table"][operation]
        for way, cells in table.items():
            if way.startswith("in process"):
                continue
            counts = sorted(map(int, cells))
            style = {"ls": "--" if way.endswith("grpc") else "-", "marker": "o", "ms": 4, "label": way}
            style["color"] = {"triton": "C0", "onnxruntime": "C1", "plain": "0.4"}[way.split()[0]]
            axes[0][column].plot(counts, [cells[str(n)]["ms"]["p50"] for n in counts], **style)
            axes[1][column].plot(
                counts, [cells[str(n)]["answers_per_second"]["median"] for n in counts], **style
            )
        alone = table["in process"]["1"]["ms"]["p50"]
        both = next(iter(table["in processes"].values()))["answers_per_second"]["median"]
        axes[0][column].axhline(alone, color="0.7", lw=0.8, ls=":", label="the engine in one process")
        axes[1][column].axhline(both, color="0.7", lw=0.8, ls=":", label="the engine alone on every core")
        axes[0][column].set(title=operation, yscale="log", xscale="log")
        axes[1][column].set(xlabel="clients", xticks=counts, xticklabels=counts, ylim=(0, None))
        axes[1][column].minorticks_off()
    axes[0][0].set_ylabel("median latency, ms")
    axes[1][0].set_ylabel("answers per second")
    axes[0][0].legend(fontsize=7)
    axes[1][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundle")
    parser.add_argument("--output", type=Path, default=ROOT / "reports/serving.json")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
        local = [
            stack.enter_context(
                ProcessPoolExecutor(
                    1, mp_context=spawn, initializer=_InProcess.open, initargs=(options.bundle,)
                )
            )
            for _ in range(cores)
        ]
        every = stack.enter_context(targets(options.bundle, folder))
        sent = bodies(*local[0].submit(_InProcess.given).result())
        report: dict[str, Any] = {
            "command": f"python benchmarks/serving.py --rounds {options.rounds} --seconds {options.seconds:g} "
            f"--clients {' '.join(map(str, options.clients))}",
            "cores": cores,
            "rounds": options.rounds,
            "seconds_a_cell": options.seconds,
            "same_answers": same_answers(every, local[0]),
            "load_alone": capacity(pool, sent, max(options.clients), options.seconds),
        }
        print("measuring", flush=True)
        cells = measure(every, pool, local, sent, options)
        report["load_average"] = os.getloadavg()[1]
        report |= summary(cells, options.clients)
        report["overload"] = {
            "clients": OVERLOAD_CLIENTS,
            **{each.name: overload(each, pool, sent, 2 * options.seconds) for each in every[:2]},
        }
    write_report(options.output, report, significant=True)
    plot(report, options.output.with_suffix(".png"))
    print(
        json.dumps(
            {name: report[name] for name in ("same_answers", "load_alone", "goals", "overload")}, indent=1
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
