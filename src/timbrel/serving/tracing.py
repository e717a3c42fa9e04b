"""Traces of requests, for an OpenTelemetry collector; off unless TIMBREL_TRACES names one.

    POST /search                                      server     child of the caller's span, if it names one
    ├── engine.stage1                                 internal   each stage of the engine
    │   └── inference.GRPCInferenceService/ModelInfer client     each call of a model
    │       └── InferRequest … compute                           Triton's own
    …

Nothing of OpenTelemetry is imported, and nothing done, while traces are off. Spans are handed over from the context of
the request, which its thread works in (``timbrel.serving.workshop``), not from OpenTelemetry's own: an asynchronous
generator may end in another context than it began in. Errors are told by their code; their messages may hold what the
caller sent.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timbrel.errors import ConfigurationError, TimbrelError
from timbrel.settings import Settings, variable

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, SpanKind

SERVICE = "timbrel"
PACKAGE = "opentelemetry.exporter.otlp.proto.http"
METHOD = "inference.GRPCInferenceService/ModelInfer"
_log = logging.getLogger("timbrel.traces")

Note = Callable[..., None]
"""Takes facts by keyword; the span has them as ``timbrel.…``."""


@dataclass(frozen=True, slots=True)
class Call:
    """Of a model: what is sent along with it, and what takes facts about it."""

    headers: dict[str, str] | None
    note: Note


def _ignore(**facts: object) -> None:
    pass


_UNTRACED = nullcontext(_ignore)
_UNTRACED_CALL = nullcontext(Call(None, _ignore))
_span: ContextVar[Span | None] = ContextVar("timbrel_span", default=None)


def check(settings: Settings) -> None:
    """Raises ConfigurationError if traces are wanted and what sends them is not installed."""
    if settings.traces and not _installed():
        raise ConfigurationError(
            f"{variable('traces')} needs OpenTelemetry's exporter: scripts/setup serve traces (or pip install "
            "-r requirements/traces.lock), or leave it empty"
        )


def _installed() -> bool:
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        return False


def address(settings: Settings) -> str:
    """Where spans are sent."""
    return f"{settings.traces}/v1/traces"


def triton_options(settings: Settings) -> tuple[str, ...]:
    """The arguments with which Triton traces what is asked within a trace (rate 0: nothing else)."""
    if not settings.traces:
        return ()
    name = os.environ.get("OTEL_SERVICE_NAME") or SERVICE
    return (
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=0",
        f"--trace-config=opentelemetry,url={address(settings)}",
        f"--trace-config=opentelemetry,resource=service.name={name}-triton",
    )


class Tracing:
    """Makes spans and sends them, in batches, from a thread of its own. What finds no room is dropped."""

    def __init__(self, settings: Settings, exporter: SpanExporter | None = None) -> None:
        """``exporter``: instead of one that sends to the settings' collector."""
        from opentelemetry import trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._exporter = _patient(exporter or _exporter(settings), address(settings))
        own = {"service.name": SERVICE, "service.instance.id": f"{socket.gethostname()}:{os.getpid()}"}
        self._provider: TracerProvider = TracerProvider(
            # OTEL_TRACES_SAMPLER is read where none is given.
            sampler=None
            if "OTEL_TRACES_SAMPLER" in os.environ
            else ParentBased(TraceIdRatioBased(settings.trace_share)),
            resource=Resource.create(own).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("timbrel")
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what waits; not for long if the collector is away."""
        self._exporter.hurry()
        self._provider.shutdown()

    @contextmanager
    def server(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Any]) -> Iterator[None]:
        kind = self._trace.SpanKind.SERVER
        # Nothing else that a caller sends is taken over: no baggage.
        context = self._propagator.extract(headers, context=_nothing())
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        _span.set(span)
        try:
            yield
        finally:
            span.end()

    @contextmanager
    def child(self, parent: Span, name: str, kind: SpanKind, attributes: Mapping[str, Any]) -> Iterator[Span]:
        context = self._trace.set_span_in_context(parent, _nothing())
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        token = _span.set(span)
        try:
            yield span
        except TimbrelError as error:
            _failed(span, error.code, error.http_status)
            raise
        except BaseException:
            _failed(span, TimbrelError.code, TimbrelError.http_status)
            raise
        finally:
            _span.reset(token)
            span.end()

    @contextmanager
    def noting(self, parent: Span, name: str, attributes: Mapping[str, Any]) -> Iterator[Note]:
        with self.child(parent, name, self._trace.SpanKind.INTERNAL, attributes) as span:
            yield _noting(span)

    @contextmanager
    def calling(self, parent: Span, model: str, host: str, port: int) -> Iterator[Call]:
        attributes = {
            "rpc.system.name": "grpc", "rpc.method": METHOD, "server.address": host, "server.port": port,
            "timbrel.model": model,
        }  # fmt: skip
        with self.child(parent, METHOD, self._trace.SpanKind.CLIENT, attributes) as span:
            headers: dict[str, str] = {}
            # Triton traces whatever has a parent, also one that says it is not sampled.
            if span.get_span_context().trace_flags.sampled:
                self._propagator.inject(headers, self._trace.set_span_in_context(span, _nothing()))
            yield Call(headers or None, _noting(span))


_active: Tracing | None = None


def start(settings: Settings) -> None:
    """Begin to trace in this process, if the settings name a collector. Raises ConfigurationError."""
    global _active
    if settings.traces:
        check(settings)
        _active = Tracing(settings)


def use(tracing: Tracing | None) -> None:
    """Trace with this from now on."""
    global _active
    _active = tracing


def stop() -> None:
    """Send what waits and trace no more."""
    global _active
    if _active is not None:
        _active.close()
        _active = None


def server(
    name: str, headers: Mapping[str, str], attributes: Mapping[str, Any]
) -> AbstractContextManager[object]:
    """Around a request, in its own task. ``headers``: what came with it; of these ``traceparent`` and
    ``tracestate`` count."""
    return _UNTRACED if _active is None else _active.server(name, headers, attributes)


def stage(name: str) -> AbstractContextManager[Note]:
    """Around a stage of the engine, where it is at work on a request."""
    return part(f"engine.{name}", {"timbrel.stage": name})


def part(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Note]:
    """Around a part of the work on a request."""
    if _active is None or (parent := _span.get()) is None:
        return _UNTRACED
    return _active.noting(parent, name, attributes)


def inference(model: str, url: str) -> AbstractContextManager[Call]:
    """Around the call of a model at ``url``, host:port."""
    if _active is None or (parent := _span.get()) is None:
        return _UNTRACED_CALL
    host, _, port = url.rpartition(":")
    return _active.calling(parent, model, host, int(port))


def answered(outcome: str, status: int | None, attributes: Mapping[str, Any], **facts: Any) -> None:
    """Tell the current request's span how it ended. ``status``: HTTP's, or the corresponding one."""
    if _active is None or (span := _span.get()) is None:
        return
    span.set_attributes(attributes)
    _noting(span)(outcome=outcome, **facts)
    if status is None or status >= 400:
        _failed(span, outcome, status)


def note(**facts: Any) -> None:
    """Facts about what the current request's thread is at, as ``timbrel.…``; None is nothing."""
    if _active is not None and (span := _span.get()) is not None:
        _noting(span)(**facts)


def ids() -> dict[str, str]:
    """``trace_id`` and ``span_id`` of the current span in hexadecimal; nothing if there is none."""
    if _active is None or (span := _span.get()) is None:
        return {}
    context = span.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _noting(span: Span) -> Note:
    def take(**facts: Any) -> None:
        for name, value in facts.items():
            if value is not None:
                span.set_attribute(f"timbrel.{name}", value)

    return take


def _failed(span: Span, code: str, status: int | None) -> None:
    """As the semantic conventions say: what the caller did wrong is no failure of a server."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", code)
    if status is not None and status >= 500:
        span.set_status(Status(StatusCode.ERROR, code))


def _nothing() -> Any:
    from opentelemetry.context import Context

    return Context()


def _exporter(settings: Settings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # Ours says it once; theirs at every attempt.
    for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return OTLPSpanExporter(endpoint=address(settings))


def _patient(inner: SpanExporter, where: str) -> Any:
    """``inner``, saying once that the collector is away, and once that it is there again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Patient(SpanExporter):
        def __init__(self) -> None:
            self._away = False
            self._hurried = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            if self._away and self._hurried:
                return SpanExportResult.FAILURE
            try:
                result = inner.export(spans)
            except Exception:
                result = SpanExportResult.FAILURE
            away = result is not SpanExportResult.SUCCESS
            if away and not self._away:
                _log.warning("traces cannot be sent to %s: they are dropped until it answers", where)
            elif self._away and not away:
                _log.info("traces are sent to %s again", where)
            self._away = away
            return result

        def hurry(self) -> None:
            """From now on one failure is enough."""
            self._hurried = True
            if self._away:
                inner.shutdown()

        def shutdown(self) -> None:
            inner.shutdown()

    return Patient()
