"""What the dashboards show: per panel a title, queries, a unit and a width of Grafana's 24 columns.

``dashboards.py`` makes Grafana's JSON of it. Quantiles and shares look back 5 minutes or more, for a service that is
asked a few times a minute; ``$__rate_interval`` is Grafana's shortest window that holds four scrapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from timbrel.serving.metrics import FAULTS

ASKED = 'endpoint=~"search|synthesize|instrument|locate"'
FAULT = f'outcome=~"{"|".join(FAULTS)}"'
QUICK = 'endpoint=~"search|synthesize"'
MODEL = "sum by (model)"


@dataclass(frozen=True)
class Query:
    """PromQL and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """``lines`` are values at which a line is drawn; ``good`` says on which side of the first it is well."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "bargauge"] = "timeseries"
    width: int = 12
    stacked: bool = False
    lines: tuple[float, ...] = ()
    good: Literal["below", "above"] = "below"
    least: float | None = 0.0
    most: float | None = None
    decimals: int | None = None
    named: bool = False
    empty: str = ""

    @property
    def height(self) -> int:
        return 4 if self.kind == "stat" else 8


@dataclass(frozen=True)
class Row:
    title: str


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    about: str
    parts: tuple[Row | Panel, ...] = field(default=())


def quantiles(buckets: str, *shares: float) -> tuple[Query, ...]:
    """Quantiles of one histogram, given as a selector of its buckets."""
    return tuple(
        Query(f"histogram_quantile({share}, sum by (le) (rate({buckets}[5m])))", f"{share:.0%}")
        for share in shares
    )


def per_second(counter: str, by: str, selector: str = "") -> Query:
    return Query(f"sum by ({by}) (rate({counter}{selector}[$__rate_interval]))", f"{{{{{by}}}}}")


def mean_triton(which: str) -> Query:
    """Mean time of a request in Triton, in seconds: its counters are in microseconds."""
    return Query(
        f"{MODEL} (rate(nv_inference_{which}_duration_us[5m])) / 1e6"
        f" / ({MODEL} (rate(nv_inference_request_success[5m])) > 0)",
        "{{model}}",
    )


def objective(kind: str, about: str, goal: float, good: str) -> tuple[Panel, Panel]:
    """The share over 30 days, and what is left of what may fail."""
    return (
        Panel(
            f"{kind}, 30 days", f"{about} The objective is {goal:.1%}.", (Query(good, ""),),
            unit="percentunit", kind="stat", width=5, lines=(goal,), good="above", least=None, decimals=2,
        ),
        Panel(
            f"{kind} budget left", "What is left of what may fail in 30 days: none at 0, overspent below.",
            (Query(f"1 - (1 - ({good})) / {1 - goal:.3g}", ""),),
            unit="percentunit", kind="stat", width=5, lines=(0.0,), good="above", least=None, decimals=1,
        ),
    )  # fmt: skip


ANSWERED = (
    f"1 - sum(increase(timbrel_requests_total{{{ASKED},{FAULT}}}[30d]))"
    f" / (sum(increase(timbrel_requests_total{{{ASKED}}}[30d])) > 0)"
)
QUICKLY = (
    f'sum(increase(timbrel_request_seconds_bucket{{{QUICK},le="1.0"}}[30d]))'
    f" / (sum(increase(timbrel_request_seconds_count{{{QUICK}}}[30d])) > 0)"
)
BURN = (14.4, 6.0, 1.0)

SERVICE = Board(
    "service", "Timbrel: service", "Is it answering, how fast, and where does the time go?",
    (
        Row("Objectives"),
        *objective("Answered", "Requests that did not fail by the service's fault.", 0.995, ANSWERED),
        *objective("Within 1 s", "Searches and notes answered within a second.", 0.99, QUICKLY),
        Panel(
            "Alerts that fire", "Without the watchdog, which always does.",
            (Query('count(ALERTS{alertstate="firing",severity!="none"}) or vector(0)', ""),),
            kind="stat", width=4, lines=(1.0,),
        ),
        Panel(
            "Burn rate of errors", "1 spends the budget of 30 days in 30 days. Lines: where the alerts begin.",
            tuple(
                Query(f"timbrel:requests_failed:ratio_rate{window} / 0.005", window)
                for window in ("5m", "1h", "6h", "3d")
            ),
            lines=BURN, decimals=1,
        ),
        Panel(
            "Burn rate of slowness", "1 spends the budget of 30 days in 30 days. Lines: where the alerts begin.",
            tuple(
                Query(f"timbrel:requests_slow:ratio_rate{window} / 0.01", window)
                for window in ("5m", "1h", "6h", "3d")
            ),
            lines=BURN, decimals=1,
        ),
        Row("Traffic"),
        Panel(
            "Requests by endpoint", "HTTP and gRPC, all workers.",
            (per_second("timbrel_requests_total", "endpoint"),), unit="reqps", stacked=True,
        ),
        Panel(
            "Requests that were not answered", "By code: the caller's errors and the service's.",
            (per_second("timbrel_requests_total", "outcome", '{outcome!="ok"}'),), unit="reqps", stacked=True,
        ),
        Row("Latency"),
        Panel(
            "Searches", "From a request's headers to its answer. Line: the objective.",
            quantiles('timbrel_request_seconds_bucket{endpoint="search"}', 0.5, 0.95, 0.99),
            unit="s", lines=(1.0,),
        ),
        Panel(
            "Notes", "/synthesize, from a request's headers to its answer. Line: the objective.",
            quantiles('timbrel_request_seconds_bucket{endpoint="synthesize"}', 0.5, 0.95, 0.99),
            unit="s", lines=(1.0,),
        ),
        Panel(
            "Time by stage, 95 %", "Stages of the engine; the models' include Triton.",
            (
                Query(
                    "histogram_quantile(0.95, sum by (stage, le) (rate(timbrel_stage_seconds_bucket[5m])))",
                    "{{stage}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Where the time goes", "Seconds that each stage takes in a second: 1 is one thread at work.",
            (per_second("timbrel_stage_seconds_sum", "stage"),), stacked=True,
        ),
        Row("What is served"),
        Panel(
            "Bundle", "The content hash of the bundle; two for more than a moment are an alert.",
            (Query("timbrel_bundle_info == 1", "{{bundle}}"),), kind="stat", width=24, named=True,
        ),
    ),
)  # fmt: skip

MODELS = Board(
    "models", "Timbrel: models", "Triton: what the models do, and what waits for them.",
    (
        Row("Load"),
        Panel(
            "Requests by model", "Answered requests.",
            (per_second("nv_inference_request_success", "model"),), unit="reqps", stacked=True,
        ),
        Panel(
            "Requests that failed", "By reason; a cancelled one was given up by its caller.",
            (per_second("nv_inference_request_failure", "reason"),), unit="reqps", stacked=True,
        ),
        Row("Time"),
        Panel(
            "Mean time in the queue", "Before a model's instance takes the request.",
            (mean_triton("queue"),), unit="s",
        ),
        Panel("Mean time of a request", "Queue, copying and the model itself.", (mean_triton("request"),), unit="s"),
        Panel(
            "Requests that wait", "Taken by Triton and not yet begun.",
            (Query("sum by (model) (nv_inference_pending_request_count)", "{{model}}"),),
        ),
        Panel(
            "How busy each model is", "Seconds of computing in a second: 1 is one instance without a pause.",
            (
                Query(
                    "sum by (model) (rate(nv_inference_compute_infer_duration_us[$__rate_interval])) / 1e6",
                    "{{model}}",
                ),
            ),
            unit="percentunit",
        ),
        Row("Batches and cache"),
        Panel(
            "Mean batch size", "Inferences per execution: notes of a chord, windows of a recording, waiting requests.",
            (
                Query(
                    "sum by (model) (rate(nv_inference_count[5m]))"
                    " / (sum by (model) (rate(nv_inference_exec_count[5m])) > 0)",
                    "{{model}}",
                ),
            ),
            decimals=1,
        ),
        Panel(
            "Hits of the response cache", "Triton has these figures only where it was started with a cache.",
            (
                Query(
                    "sum by (model) (rate(nv_cache_num_hits_per_model[5m])) / (sum by (model)"
                    " (rate(nv_cache_num_hits_per_model[5m]) + rate(nv_cache_num_misses_per_model[5m])) > 0)",
                    "{{model}}",
                ),
            ),
            unit="percentunit", most=1.0, empty="Triton's response cache is off",
        ),
    ),
)  # fmt: skip

RETRIEVAL = Board(
    "retrieval", "Timbrel: retrieval quality", "Do searches find something near, and do they ask for what is there?",
    (
        Row("Now"),
        Panel(
            "Searches without a hit, 1 h", "First pages. Above 20 % is an alert.",
            (Query("timbrel:searches_empty:ratio_rate1h", ""),),
            unit="percentunit", kind="stat", width=6, lines=(0.2,), decimals=1,
        ),
        Panel(
            "Hits that are hubs, 1 h", "Patches that are near to far too many others.",
            (Query("timbrel:search_hub_hits:ratio_rate1h", ""),),
            unit="percentunit", kind="stat", width=6, decimals=1,
        ),
        Panel(
            "Drift of embeddings, 6 h", "Population stability index against the library; above 0.25 is an alert.",
            (Query('timbrel:query_drift:psi6h{quantity="embedding"}', ""),),
            kind="stat", width=6, lines=(0.25,), decimals=2,
        ),
        Panel(
            "Drift of pitch, 6 h", "Population stability index against the library; above 0.25 is an alert.",
            (Query('timbrel:query_drift:psi6h{quantity="pitch"}', ""),),
            kind="stat", width=6, lines=(0.25,), decimals=2,
        ),
        Row("Queries"),
        Panel(
            "Decisions of the pitch gate", "Per search with a recording.",
            (per_second("timbrel_gate_decisions_total", "decision"),), unit="reqps", stacked=True,
        ),
        Panel(
            "Pitch of queries", "MIDI pitch that the gate accepted, over an hour.",
            tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le) (rate(timbrel_query_pitch_midi_bucket[1h])))",
                    f"{share:.0%}",
                )
                for share in (0.1, 0.5, 0.9)
            ),
            least=None,
        ),
        Row("Answers"),
        Panel(
            "Distance of the best hit", "By which hits are ordered; 1 is as far as the render's own neighbours are.",
            quantiles('timbrel_search_distance_bucket{place="best"}', 0.1, 0.5, 0.9),
        ),
        Panel(
            "Distance of the tenth hit", "By which hits are ordered; 1 is as far as the render's own neighbours are.",
            quantiles('timbrel_search_distance_bucket{place="tenth"}', 0.1, 0.5, 0.9),
        ),
        Panel(
            "Searches without a hit", "Share of first pages over an hour. Line: the alert.",
            (Query("timbrel:searches_empty:ratio_rate1h", "without a hit"),), unit="percentunit", lines=(0.2,),
        ),
        Panel(
            "Hits that are hubs", "Share of all hits over an hour.",
            (Query("timbrel:search_hub_hits:ratio_rate1h", "hubs"),), unit="percentunit",
        ),
        Row("Drift"),
        Panel(
            "Drift of queries against the library", "Population stability index over six hours. Line: the alert.",
            (Query("timbrel:query_drift:psi6h", "{{quantity}}"),), lines=(0.25,), width=24,
        ),
        Panel(
            "Embedding cells that are asked for more", "Share of the queries less the library's, by its cells.",
            (
                Query(
                    'timbrel:query_cell:share6h{quantity="embedding"} - timbrel:reference_cell:share', "{{cell}}"
                ),
            ),
            unit="percentunit", kind="bargauge", least=None, decimals=1,
        ),
        Panel(
            "Pitch cells that are asked for more", "Share of the queries less the library's, by its cells.",
            (
                Query('timbrel:query_cell:share6h{quantity="pitch"} - timbrel:reference_cell:share', "{{cell}}"),
            ),
            unit="percentunit", kind="bargauge", least=None, decimals=1,
        ),
    ),
)  # fmt: skip

GENERATOR = Board(
    "generator", "Timbrel: generator", "Do the notes that it makes have the pitch of their key? Measured on a sample.",
    (
        Row("Now"),
        Panel(
            "Out of tune, 1 h", "More than 50 cents off, or without a pitch. Above 10 % is an alert.",
            (Query("timbrel:notes_off:ratio_rate1h", ""),),
            unit="percentunit", kind="stat", width=8, lines=(0.1,), decimals=1,
        ),
        Panel(
            "Median error, 1 h", "Of the notes that have a pitch.",
            (
                Query("histogram_quantile(0.5, sum by (le) (rate(timbrel_note_error_cents_bucket[1h])))", ""),
            ),
            unit="suffix: cents", kind="stat", width=8, lines=(20.0,), decimals=1,
        ),
        Panel(
            "Notes measured, 1 h", "TIMBREL_CHECKED_SHARE of what is made.",
            (Query("sum(increase(timbrel_notes_checked_total[1h]))", ""),), kind="stat", width=8, decimals=0,
        ),
        Row("Pitch"),
        Panel(
            "Notes measured, by result", "In tune is within 50 cents.",
            (per_second("timbrel_notes_checked_total", "result"),), unit="ops", stacked=True,
        ),
        Panel(
            "Error of the pitch", "Cents from the key, without sign.",
            quantiles("timbrel_note_error_cents_bucket", 0.5, 0.9, 0.99), unit="suffix: cents", lines=(50.0,),
        ),
        Row("Making"),
        Panel(
            "Time to generate", "From place, pitch and velocity to codec frames.",
            quantiles('timbrel_stage_seconds_bucket{stage="generate"}', 0.5, 0.95), unit="s",
        ),
        Panel(
            "Time to decode", "From codec frames to sound.",
            quantiles('timbrel_stage_seconds_bucket{stage="decode"}', 0.5, 0.95), unit="s",
        ),
    ),
)  # fmt: skip

CAPACITY = Board(
    "capacity", "Timbrel: capacity", "How much more can it take, and what runs out first?",
    (
        Row("Places"),
        Panel(
            "Places that are taken", "Requests that work or wait, of those that may. Line: the alert.",
            (Query("timbrel:workshop_fill:ratio", "{{workshop}}"),), unit="percentunit", most=1.0, lines=(0.8,),
        ),
        Panel(
            "Requests at work and waiting", "All workers.",
            (
                Query("sum by (workshop) (timbrel_workshop_busy)", "{{workshop}} at work"),
                Query("sum by (workshop) (timbrel_workshop_waiting)", "{{workshop}} waiting"),
            ),
            stacked=True,
        ),
        Panel(
            "Refused or too late", "A full queue and a model server that does not answer are told as unavailable.",
            (
                per_second(
                    "timbrel_requests_total", "outcome", '{outcome=~"unavailable|deadline_exceeded"}'
                ),
            ),
            unit="reqps", stacked=True,
        ),
        Panel("Workers", "Processes of the HTTP service that live.", (Query("timbrel_workers", "workers"),)),
        Row("The machine"),
        Panel(
            "Memory of the workers", "Resident, added up.",
            (Query("timbrel_worker_memory_bytes", "workers"),), unit="bytes",
        ),
        Panel(
            "Memory of the machine", "As Triton sees it. Line: the alert.",
            (Query("nv_cpu_memory_used_bytes / nv_cpu_memory_total_bytes", "in use"),),
            unit="percentunit", most=1.0, lines=(0.92,),
        ),
        Panel(
            "Processors", "As Triton sees them: all of them at work is 100 %.",
            (Query("avg_over_time(nv_cpu_utilization[1m])", "at work"),), unit="percentunit", most=1.0,
        ),
        Panel(
            "Computing by model", "Seconds of computing in a second, all models in one pile.",
            (
                Query(
                    "sum by (model) (rate(nv_inference_compute_infer_duration_us[$__rate_interval])) / 1e6",
                    "{{model}}",
                ),
            ),
            stacked=True,
        ),
        Row("The monitoring itself"),
        Panel(
            "Time of a scrape", "A slow one says that a process is short of time.",
            (Query("scrape_duration_seconds", "{{job}}"),), unit="s",
        ),
        Panel(
            "Series that Prometheus holds", "It needs some kilobytes of memory for each.",
            (Query("prometheus_tsdb_head_series", "series"),), decimals=0,
        ),
    ),
)  # fmt: skip

BOARDS = (SERVICE, MODELS, RETRIEVAL, GENERATOR, CAPACITY)
