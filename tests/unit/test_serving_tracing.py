"""Spans: of whom, when, and nothing at all while traces are off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from timbrel import settings
from timbrel.client.tracing import trace_headers
from timbrel.errors import ConfigurationError, InputError, Unavailable
from timbrel.serving import tracing
from timbrel.serving.tracing import Tracing

ON = {"TIMBREL_TRACES": "http://127.0.0.1:4318"}
CALLER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Traces are on."""
    kept = InMemorySpanExporter()
    tracing.use(Tracing(settings.load(ON), kept))
    yield kept
    tracing.stop()


def _ended(exporter: InMemorySpanExporter) -> dict[str, object]:
    tracing.stop()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_off_nothing_of_opentelemetry_is_imported_and_nothing_is_made() -> None:
    program = """
import sys
from timbrel import settings
from timbrel.client.tracing import trace_headers
from timbrel.serving import tracing
tracing.start(settings.load({}))
with tracing.server("POST /search", {}, {}):
    with tracing.stage("f0") as note, tracing.inference("m", "h:1") as call:
        note(a=1)
        call.note(b=2)
        assert call.headers is None
    tracing.answered("ok", 200, {})
    assert tracing.ids() == {} == trace_headers()
tracing.stop()
assert tracing.triton_options(settings.load({})) == ()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_span_begins_without_a_request(exporter: InMemorySpanExporter) -> None:
    with tracing.stage("f0"), tracing.inference("generator", "127.0.0.1:8001") as call:
        assert call.headers is None
    assert _ended(exporter) == {}


def test_parents_attributes_and_what_is_passed_on(exporter: InMemorySpanExporter) -> None:
    with tracing.server("POST /search", CALLER, {"http.request.method": "POST"}):
        ids = tracing.ids()
        with tracing.stage("stage1") as note, tracing.inference("timbre_encoder", "[::1]:8001") as call:
            note(candidates=3, nothing=None)
            call.note(model_version="2")
            passed = call.headers
        tracing.answered("ok", 200, {"http.response.status_code": 200}, bundle="2274")
    spans = _ended(exporter)
    server, stage, infer = spans["POST /search"], spans["engine.stage1"], spans[tracing.METHOD]
    assert ids["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert ids["span_id"] == f"{server.context.span_id:016x}"
    assert f"{server.parent.span_id:016x}" == "b7ad6b7169203331"
    assert stage.parent.span_id == server.context.span_id
    assert infer.parent.span_id == stage.context.span_id
    assert infer.kind is trace.SpanKind.CLIENT
    assert (infer.attributes["server.address"], infer.attributes["server.port"]) == ("[::1]", 8001)
    assert infer.attributes["timbrel.model_version"] == "2"
    assert dict(stage.attributes) == {"timbrel.stage": "stage1", "timbrel.candidates": 3}
    assert passed == {"traceparent": f"00-{ids['trace_id']}-{infer.context.span_id:016x}-01"}
    assert server.attributes["timbrel.bundle"] == "2274"
    assert server.status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize(
    ("error", "status"),
    [(InputError("secret"), "UNSET"), (Unavailable("secret"), "ERROR"), (ValueError("secret"), "ERROR")],
)
def test_errors_are_told_by_their_code_alone(
    exporter: InMemorySpanExporter, error: Exception, status: str
) -> None:
    with tracing.server("POST /locate", {}, {}):
        with pytest.raises(type(error)), tracing.stage("map"):
            raise error
        with tracing.stage("refine"):
            pass
    spans = _ended(exporter)
    failed = spans["engine.map"]
    assert failed.attributes["error.type"] == getattr(error, "code", "internal_error")
    assert failed.status.status_code.name == status
    assert "secret" not in failed.to_json()
    # After an error the request's own span is the current one again.
    assert spans["engine.refine"].parent.span_id == spans["POST /locate"].context.span_id


@pytest.mark.parametrize("header", ["", "00-0-0-01", "00-" + 32 * "0" + "-b7ad6b7169203331-01", "x" * 10_000])
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(
    exporter: InMemorySpanExporter, header: str
) -> None:
    with tracing.server("GET /info", {"traceparent": header}, {}):
        pass
    assert _ended(exporter)["GET /info"].parent is None


def test_a_share_of_none_traces_only_what_a_caller_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(headers: dict[str, str]) -> list[str]:
        kept = InMemorySpanExporter()
        tracing.use(Tracing(settings.load({**ON, "TIMBREL_TRACE_SHARE": "0"}), kept))
        with tracing.server("GET /info", headers, {}):
            assert set(tracing.ids()) == {"trace_id", "span_id"}
        return list(_ended(kept))

    assert made({}) == []
    assert made(CALLER) == ["GET /info"]
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert made(CALLER) == []


def test_resources_and_triton_take_opentelemetrys_own_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = settings.load({"TIMBREL_TRACES": "https://collector.example/otlp/"})
    assert "--trace-config=opentelemetry,resource=service.name=timbrel-triton" in tracing.triton_options(
        chosen
    )
    assert (
        "--trace-config=opentelemetry,url=https://collector.example/otlp/v1/traces"
        in tracing.triton_options(chosen)
    )
    monkeypatch.setenv("OTEL_SERVICE_NAME", "studio")
    assert "--trace-config=opentelemetry,resource=service.name=studio-triton" in tracing.triton_options(
        chosen
    )
    kept = InMemorySpanExporter()
    tracing.use(Tracing(chosen, kept))
    with tracing.server("GET /info", {}, {}):
        pass
    assert _ended(kept)["GET /info"].resource.attributes["service.name"] == "studio"


def test_a_collector_that_is_away_is_told_once_and_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Flaky(InMemorySpanExporter):
        results = iter(
            ["raise", SpanExportResult.FAILURE, SpanExportResult.SUCCESS, SpanExportResult.FAILURE]
        )

        def export(self, spans: object) -> SpanExportResult:
            result = next(self.results)
            if result == "raise":
                raise OSError("refused")
            return result

    patient = tracing._patient(Flaky(), "http://c/v1/traces")
    caplog.set_level("INFO", logger="timbrel.traces")
    for _ in range(3):
        patient.export([])
    told = "traces cannot be sent to http://c/v1/traces: they are dropped until it answers"
    assert caplog.messages == [told, "traces are sent to http://c/v1/traces again"]
    patient.export([])
    patient.hurry()
    # Nothing more is tried at the end: the exporter above would have no more to say.
    assert patient.export([]) is SpanExportResult.FAILURE
    assert caplog.messages.count(told) == 2


def test_without_the_exporter_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PACKAGE", "opentelemetry.exporter.not_installed")
    tracing.check(settings.load({}))
    with pytest.raises(ConfigurationError, match="TIMBREL_TRACES needs OpenTelemetry's exporter"):
        tracing.check(settings.load(ON))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:4318", "ftp://a", "http://u:p@a:1", "http://a/?x=1", "http://a b"]
)
def test_a_collector_is_a_url_without_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="TIMBREL_TRACES: must be the URL of a collector"):
        settings.load({"TIMBREL_TRACES": url})


def test_the_full_address_of_a_collector_is_taken_too() -> None:
    chosen = settings.load({"TIMBREL_TRACES": "http://127.0.0.1:4318/v1/traces"})
    assert tracing.address(chosen) == "http://127.0.0.1:4318/v1/traces"


def test_our_client_passes_a_callers_span_on() -> None:
    assert trace_headers() == {}
    context = trace.SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert trace_headers() == {"traceparent": f"00-{0xAB:032x}-{0xCD:016x}-01"}
