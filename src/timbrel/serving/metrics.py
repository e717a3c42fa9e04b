"""What Prometheus hears of the service.

`docs/reference/metrics.md` lists the metrics: names, labels and the help that stands below.

Distances, pitches and cells are of recordings and vectors: a search for more like a patch of the library says nothing
of those who ask.

BentoML's own request metrics are off: they carry the raw path as a label, so that every stray URL makes new series.
Several workers write into one folder (``PROMETHEUS_MULTIPROC_DIR``), and whichever is asked adds them up. BentoML sets
the variable before it starts a worker; prometheus_client reads it when first imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from timbrel.library.bundle import Bundle
from timbrel.library.reference import CELLS, Reference
from timbrel.pitch.gate import Decision

ENDPOINTS = (
    "search", "synthesize", "instrument", "locate", "patches", "patch", "patch_file", "patch_preview", "info", "other",
)  # fmt: skip
OK = "ok"
FAULTS = (
    "internal_error", "invalid_bundle", "invalid_configuration", "invalid_data", "unavailable", "deadline_exceeded",
)  # fmt: skip
"""The outcomes that are the service's fault and count against its objectives; a 500 is one, a caller's error none."""
WORKSHOPS = ("questions", "instruments")
QUANTITIES = ("embedding", "pitch")
IN_TUNE_CENTS = 50.0
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_requests = Counter(
    "timbrel_requests_total", "Requests answered. outcome: ok, or the code of the error.",
    ["endpoint", "outcome"],
)  # fmt: skip
_seconds = Histogram(
    "timbrel_request_seconds",
    "From a request's headers to the first byte of its answer; over gRPC to its last, and each of a batch by itself.",
    ["endpoint"],
    buckets=_BUCKETS,
)
_stages = Histogram(
    "timbrel_stage_seconds",
    "Time in a stage of the engine: f0, gate, stage1, index, stage2, map, refine, generate, decode.",
    ["stage"],
    buckets=_BUCKETS,
)
_decisions = Counter(
    "timbrel_gate_decisions_total", "What the F0 gate decided on the queries of searches.", ["decision"]
)
# Without a mode every worker's gauge would get a pid label; livemax is one series, of workers that live.
_bundle = Gauge(
    "timbrel_bundle_info", "The bundle that is served: 1; 0 after another took its place.", ["bundle", "revision"],
    multiprocess_mode="livemax",
)  # fmt: skip
_models = Gauge(
    "timbrel_model_info",
    "The models that are served, and the engine that runs them: 1; 0 after others took their place.",
    ["model", "sha256", "engine"], multiprocess_mode="livemax",
)  # fmt: skip

_searches = Counter(
    "timbrel_searches_total",
    "Searches answered. answer: hits, or empty. First pages only, as all that follows of searches.",
    ["answer"],
)
_hits = Counter("timbrel_search_hits_total", "Hits in these answers.")
_hub_hits = Counter(
    "timbrel_search_hub_hits_total", "Those that are hubs of the library: near to very many of its renders."
)
_distances = Histogram(
    "timbrel_search_distance",
    "Distance by which hits are ordered. place: best, tenth.",
    ["place"],
    buckets=(0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5),
)
_pitches = Histogram(
    "timbrel_query_pitch_midi",
    "MIDI pitch of the queries that the gate accepted.",
    buckets=tuple(range(12, 121, 6)),
)
_cells = Counter(
    "timbrel_query_cell_total",
    "Queries by the library's cell that they fall into. quantity: embedding, pitch.",
    ["quantity", "cell"],
)
# Of the worker that set it last: a library that was swapped in has shares of its own.
_shares = Gauge(
    "timbrel_reference_share",
    "Share of the library's renders that lie there: what the queries' drift is measured against.",
    ["quantity", "cell"],
    multiprocess_mode="livemostrecent",
)
_checked = Counter(
    "timbrel_notes_checked_total",
    "Synthesized notes whose pitch was measured. result: in_tune, off, unpitched.",
    ["result"],
)
_errors = Histogram(
    "timbrel_note_error_cents",
    "Cents between the measured pitch of such a note and its key, without sign.",
    buckets=(1, 2, 5, 10, 20, 30, 50, 100, 200, 600, 1200),
)
_busy = Gauge(
    "timbrel_workshop_busy", "Threads at work. workshop: questions, instruments.", ["workshop"],
    multiprocess_mode="livesum",
)  # fmt: skip
_waiting = Gauge(
    "timbrel_workshop_waiting", "Requests that wait for a thread.", ["workshop"], multiprocess_mode="livesum"
)
_places = Gauge(
    "timbrel_workshop_places", "Requests that may work or wait at the same time.", ["workshop"],
    multiprocess_mode="livesum",
)  # fmt: skip


def request_answered(endpoint: str, outcome: str, seconds: float) -> None:
    _requests.labels(endpoint, outcome).inc()
    _seconds.labels(endpoint).observe(seconds)


def stage_done(stage: str, seconds: float) -> None:
    _stages.labels(stage).observe(seconds)


def gate_decided(decision: Decision) -> None:
    _decisions.labels(decision.value).inc()


def search_answered(*, hits: int, hub_hits: int) -> None:
    _searches.labels("hits" if hits else "empty").inc()
    _hits.inc(hits)
    _hub_hits.inc(hub_hits)


def hit_found(place: str, distance: float) -> None:
    _distances.labels(place).observe(distance)


def pitch_accepted(midi: float) -> None:
    _pitches.observe(midi)


def query_fell(quantity: str, cell: int) -> None:
    _cells.labels(quantity, f"{cell:02}").inc()


def note_checked(error_cents: float | None) -> None:
    """``error_cents`` is None for a note without a pitch."""
    if error_cents is None:
        _checked.labels("unpitched").inc()
        return
    _checked.labels("in_tune" if error_cents <= IN_TUNE_CENTS else "off").inc()
    _errors.observe(error_cents)


def workshop_opened(workshop: str, places: int) -> None:
    _places.labels(workshop).set(places)
    workshop_has(workshop, busy=0, waiting=0)


def workshop_has(workshop: str, *, busy: int, waiting: int) -> None:
    _busy.labels(workshop).set(busy)
    _waiting.labels(workshop).set(waiting)


def serving(bundle: Bundle, engine: str, reference: Reference, *, instead_of: Bundle | None = None) -> None:
    """Announce bundle and models, and start every counter at 0, so that a first failure shows as a rise."""
    if instead_of is not None:
        _announce(instead_of, engine, 0)
    _announce(bundle, engine, 1)
    for endpoint in ENDPOINTS:
        for outcome in (OK, *FAULTS):
            _requests.labels(endpoint, outcome)
        _seconds.labels(endpoint)
    for decision in Decision:
        _decisions.labels(decision.value)
    for answer in ("hits", "empty"):
        _searches.labels(answer)
    for place in ("best", "tenth"):
        _distances.labels(place)
    for result in ("in_tune", "off", "unpitched"):
        _checked.labels(result)
    for quantity, shares in zip(
        QUANTITIES, (reference.embedding_shares, reference.pitch_shares), strict=True
    ):
        for cell in range(CELLS):
            _cells.labels(quantity, f"{cell:02}")
            _shares.labels(quantity, f"{cell:02}").set(float(shares[cell]))


def _announce(bundle: Bundle, engine: str, served: int) -> None:
    manifest = bundle.manifest
    _bundle.labels(manifest.id, manifest.provenance.git_revision).set(served)
    for name, model in manifest.models.items():
        _models.labels(name, manifest.files[model.file].sha256, engine).set(served)


def exposition() -> bytes:
    """The metrics of all workers, in Prometheus' text format."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return generate_latest(REGISTRY) + _of_workers([psutil.Process()])
    workers = _living(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry) + _of_workers(workers)


def _living(folder: Path) -> list[psutil.Process]:
    """The workers that live. The gauges of those that do not are removed: they would count for ever, since only a
    worker that ends by itself could take them with it. What the dead have counted stays.
    """
    workers = {}
    for path in folder.glob("gauge_live*.db"):
        number = int(path.stem.rpartition("_")[2])
        try:
            process = psutil.Process(number)
            # A number that another program has now: a worker is a child of the one that started this one.
            if process.status() != psutil.STATUS_ZOMBIE and process.ppid() == os.getppid():
                workers[number] = process
                continue
        except psutil.NoSuchProcess:
            pass
        path.unlink(missing_ok=True)
    return list(workers.values())


def _of_workers(workers: Sequence[psutil.Process]) -> bytes:
    registry = CollectorRegistry()
    registry.register(Workers(workers))
    return generate_latest(registry)


class Workers(Collector):
    """What is read of the processes at the time of the scrape."""

    def __init__(self, workers: Sequence[psutil.Process]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        memory = []
        for worker in self._workers:
            try:
                memory.append(worker.memory_info().rss)
            except psutil.NoSuchProcess:  # just now
                continue
        yield GaugeMetricFamily("timbrel_workers", "Worker processes that live.", value=len(memory))
        yield GaugeMetricFamily(
            "timbrel_worker_memory_bytes", "Resident memory of the workers.", value=sum(memory)
        )
