"""What Prometheus hears of the service.

    timbrel_requests_total{endpoint, outcome}   outcome: "ok" or the code of the error
    timbrel_request_seconds{endpoint}           from the request's headers to the first byte of its answer; over gRPC
                                                to its last, and each of a batch by itself
    timbrel_stage_seconds{stage}                of f0 gate stage1 index stage2 map refine generate decode
    timbrel_gate_decisions_total{decision}
    timbrel_bundle_info{bundle, revision}       1; 0 after another took its place
    timbrel_model_info{model, sha256, engine}   1; likewise

BentoML's own request metrics are off: they carry the raw path as a label, so that every stray URL makes new series.
Several workers write into one folder (``PROMETHEUS_MULTIPROC_DIR``), and whichever is asked adds them up. BentoML sets
the variable before it starts a worker; prometheus_client reads it when first imported.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from timbrel.library.bundle import Bundle
from timbrel.pitch.gate import Decision

ENDPOINTS = (
    "search", "synthesize", "instrument", "locate", "patches", "patch", "patch_file", "patch_preview", "info", "other",
)  # fmt: skip
OK = "ok"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_requests = Counter(
    "timbrel_requests_total", "Requests answered, by endpoint and outcome (ok, or the error's code).",
    ["endpoint", "outcome"],
)  # fmt: skip
_seconds = Histogram(
    "timbrel_request_seconds",
    "Seconds from a request's headers to its answer.",
    ["endpoint"],
    buckets=_BUCKETS,
)
_stages = Histogram(
    "timbrel_stage_seconds", "Seconds spent in a stage of the engine.", ["stage"], buckets=_BUCKETS
)
_decisions = Counter(
    "timbrel_gate_decisions_total", "Decisions of the F0 gate on search queries.", ["decision"]
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


def request_answered(endpoint: str, outcome: str, seconds: float) -> None:
    _requests.labels(endpoint, outcome).inc()
    _seconds.labels(endpoint).observe(seconds)


def stage_done(stage: str, seconds: float) -> None:
    _stages.labels(stage).observe(seconds)


def gate_decided(decision: Decision) -> None:
    _decisions.labels(decision.value).inc()


def serving(bundle: Bundle, engine: str, *, instead_of: Bundle | None = None) -> None:
    """Announce bundle and models, and start every counter at 0, so that a first failure shows as a rise."""
    if instead_of is not None:
        _announce(instead_of, engine, 0)
    _announce(bundle, engine, 1)
    for endpoint in ENDPOINTS:
        _requests.labels(endpoint, OK)
    for decision in Decision:
        _decisions.labels(decision.value)


def _announce(bundle: Bundle, engine: str, served: int) -> None:
    manifest = bundle.manifest
    _bundle.labels(manifest.id, manifest.provenance.git_revision).set(served)
    for name, model in manifest.models.items():
        _models.labels(name, manifest.files[model.file].sha256, engine).set(served)


def exposition() -> bytes:
    """The metrics of all workers, in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
