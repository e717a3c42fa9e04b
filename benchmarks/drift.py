"""Does the drift alert stay quiet on searches for sounds like the library's, and fire on searches for others?

    python benchmarks/drift.py [--bundle bundle] [--queries 440] [--seed 12] [--output reports/drift.json]

Streams of notes, each played anew by the patches' own instruments with noise 30 dB below:

    normal    patches of the library drawn at random, at any key from MIDI 36 to 84 and any velocity; four times as many
    basses    its basses alone, MIDI 24 to 43
    high      its patches at random, MIDI 72 to 84 alone
    drums     bursts of low-passed noise

What falls into which cell of the library is counted twice. In process: 2,000 windows of as many queries as the alert
asks for at least, drawn from each stream with replacement, which spreads them a little more than they would be. And
live: `timbrel serve` with two workers is searched with the normal stream, then with the basses, and scraped by a
Prometheus with monitoring/prometheus/rules/drift.yml, every duration divided by 60 (six hours are six minutes).

Exit status 1 if the alert was not quiet on the normal stream, or did not fire on the shifted one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soxr

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.prometheus import Prometheus, hurried  # noqa: E402
from support.serving import Serving, until  # noqa: E402

from timbrel.audio import SAMPLE_RATE, Audio, wav_bytes  # noqa: E402
from timbrel.engine.asking import Asked, Question  # noqa: E402
from timbrel.engine.engine import Engine  # noqa: E402
from timbrel.engine.onnx_models import OnnxModels  # noqa: E402
from timbrel.engine.results import SearchResult  # noqa: E402
from timbrel.evaluation.queries import Plan, play  # noqa: E402
from timbrel.evaluation.report import write_report  # noqa: E402
from timbrel.library.bundle import Bundle  # noqa: E402
from timbrel.library.reference import CELLS, Reference  # noqa: E402
from timbrel.library.tables import Patch  # noqa: E402

RULES = ROOT / "monitoring" / "prometheus" / "rules" / "drift.yml"
FACTOR = 60.0
HELD_SECONDS = 15 * 60 / FACTOR
# As the rules have them.
LEAST_QUERIES, THRESHOLD, EQUAL_SHARE = 400, 0.25, 0.05
WINDOWS = 2_000
NOISE_DB = 30.0


def streams(bundle: Bundle, count: int, seed: int) -> dict[str, list[Audio]]:
    """``count`` queries of each stream, 24 kHz."""
    rng = np.random.default_rng(seed)
    basses = [patch for patch in bundle.patches if patch.family == "bass"]

    def notes(patches: Sequence[Patch], lowest: int, highest: int, count: int = count) -> list[Audio]:
        plans = [
            Plan(
                patch=patches[int(rng.integers(len(patches)))],
                key=int(rng.integers(lowest, highest + 1)),
                velocity=int(rng.integers(40, 128)),
            )
            for _ in range(count)
        ]
        queries, mute = play(plans, noise_db=NOISE_DB, banks=ROOT / "banks", seed=seed)
        if mute:
            print(f"{len(mute)} of {count} notes gave no sound", file=sys.stderr)
        return [query.audio for query in queries]

    def drum() -> Audio:
        seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        rate = float(rng.uniform(600, 4_000))
        noise = soxr.resample(rng.standard_normal(int(rate / 2)), rate, SAMPLE_RATE)[: len(seconds)]
        burst = np.pad(noise, (0, len(seconds) - len(noise))) * np.exp(-seconds / rng.uniform(0.03, 0.15))
        return Audio((0.8 * burst / np.abs(burst).max()).astype(np.float32), SAMPLE_RATE)

    return {
        "normal": notes(bundle.patches, 36, 84, 4 * count),
        "basses": notes(basses, 24, 43),
        "high": notes(bundle.patches, 72, 84),
        "drums": [drum() for _ in range(count)],
    }


def cells_of(engine: Engine, heard: list[Question], audio: Sequence[Audio]) -> dict[str, np.ndarray]:
    """Into which cell each query falls, int [queries] by quantity; ``heard`` is where the engine tells of them."""
    reference = Reference.of(engine.bundle)
    heard.clear()
    for each in audio:
        engine.search(each, k=1)
    sounding = [question for question in heard if question.stage1 is not None]
    return {
        "embedding": np.array([reference.embedding_cell(q.stage1) for q in sounding if q.stage1 is not None]),
        "pitch": np.array([reference.pitch_cell(q.query.midi) for q in sounding]),
    }


def index(queries: np.ndarray, library: np.ndarray) -> float:
    """The population stability index of two shares float64 [16], as the rules have it."""
    p, q = ((1 - EQUAL_SHARE) * each + EQUAL_SHARE / CELLS for each in (queries, library))
    return float(((p - q) * np.log(p / q)).sum())


def spread(cells: np.ndarray, library: np.ndarray, seed: int) -> dict[str, float]:
    """Of the index in windows of ``LEAST_QUERIES`` queries drawn from the stream; ``all``: of the whole stream."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(cells, size=(WINDOWS, LEAST_QUERIES))
    found = [index(np.bincount(each, minlength=CELLS) / LEAST_QUERIES, library) for each in drawn]
    return {
        "all": index(np.bincount(cells, minlength=CELLS) / len(cells), library),
        "least": min(found),
        "median": float(np.median(found)),
        "99.9 %": float(np.quantile(found, 0.999)),
    }


def live(folder: Path, bundle: Path, normal: Sequence[Audio], shifted: Sequence[Audio]) -> dict[str, Any]:
    """What Prometheus said while a service was searched with one stream after the other."""
    serving = Serving.start(bundle, folder / "serving", workers="2", engine="inprocess")
    try:
        serving.wait_ready()
        prometheus = Prometheus.start(
            folder / "prometheus",
            targets=[f"127.0.0.1:{serving.ports.http}"],
            rules={"drift.yml": hurried(RULES.read_text(), FACTOR)},
        )
        try:
            until(lambda: len(prometheus.query("timbrel_reference_share")) == 2 * CELLS, 60)
            return {
                "normal": _watched(serving, prometheus, normal),
                "basses": _watched(serving, prometheus, shifted),
            }
        finally:
            prometheus.stop()
    finally:
        serving.stop()


def _watched(serving: Serving, prometheus: Prometheus, audio: Sequence[Audio]) -> dict[str, Any]:
    """Search with these, and then look for as long as the alert has to hold, and half as long again."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda some: _search(serving, some), (audio[::2], audio[1::2])))
    firing: set[str] = set()
    largest: dict[str, float] = {}
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * HELD_SECONDS:
        firing |= {quantity for (_, quantity), state in prometheus.alerts().items() if state == "firing"}
        for labels, value in prometheus.query("timbrel:query_drift:psi6h").items():
            quantity = dict(labels)["quantity"]
            largest[quantity] = max(value, largest.get(quantity, 0.0))
        time.sleep(0.5)
    within = prometheus.query("timbrel:query_cells:increase6h")
    return {
        "searches": len(audio),
        "queries_in_window": {dict(labels)["quantity"]: value for labels, value in within.items()},
        "largest_index": largest,
        "firing": sorted(firing),
    }


def _search(serving: Serving, audio: Sequence[Audio]) -> None:
    with httpx.Client(base_url=serving.url, timeout=120, trust_env=False) as client:
        for each in audio:
            answer = client.post("/search", files={"audio": ("note.wav", wav_bytes(each))}, data={"k": "10"})
            answer.raise_for_status()


def main() -> int:
    """Exit status 1 if the alert did what it should not, or not what it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundle")
    parser.add_argument("--queries", type=int, default=440)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--output", type=Path, default=ROOT / "reports" / "drift.json")
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    made = streams(bundle, options.queries, options.seed)
    print({name: len(audio) for name, audio in made.items()}, flush=True)

    reference = Reference.of(bundle)
    library = {"embedding": reference.embedding_shares, "pitch": reference.pitch_shares}
    heard: list[Question] = []

    def searched(asked: Asked, question: Question, result: SearchResult) -> None:
        heard.append(question)

    models = OnnxModels({name: bundle.path(name) for name in bundle.manifest.models})
    engine = Engine(bundle, models, searched=searched)
    windows: dict[str, Mapping[str, Any]] = {}
    for name, audio in made.items():
        fallen = cells_of(engine, heard, audio)
        windows[name] = {
            quantity: spread(cells, library[quantity], options.seed) for quantity, cells in fallen.items()
        }
        print(name, windows[name], flush=True)
    report = {
        "command": "python benchmarks/drift.py",
        "bundle": bundle.id,
        "queries": options.queries,
        "seed": options.seed,
        "threshold": THRESHOLD,
        "least_queries": LEAST_QUERIES,
        "windows": windows,
    }
    engine.close()
    with tempfile.TemporaryDirectory(prefix="timbrel-drift-") as folder:
        seen = live(Path(folder), options.bundle, made["normal"][: options.queries], made["basses"])
    print(seen)
    report["live"] = {"durations_divided_by": FACTOR, **seen}
    write_report(options.output, report, significant=True)
    return 0 if not seen["normal"]["firing"] and seen["basses"]["firing"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
