"""An OpenTelemetry collector for the tests: takes OTLP over HTTP, as protobuf or as JSON (Triton)."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SECONDS = 60
KINDS = {0: "unspecified", 1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
ERROR = 2


@dataclass(frozen=True)
class Span:
    """Ids are lower-case hex; ``parent`` is empty for a root. ``service`` is the resource's ``service.name``."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    failed: bool
    began: int
    ended: int


class Collector:
    """``endpoint`` is what TIMBREL_TRACES takes."""

    def __init__(self, port: int) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self.endpoint = f"http://127.0.0.1:{port}"

    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def trace(self, trace: str) -> list[Span]:
        """The spans of one trace that have come, in the order of their beginning."""
        return sorted((span for span in self.spans() if span.trace == trace), key=lambda span: span.began)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"what came: {[span.name for span in self.spans()]}"
            time.sleep(0.05)

    def take(self, request: ExportTraceServiceRequest) -> None:
        found = []
        for resource in request.resource_spans:
            service = str(_attributes(resource.resource.attributes).get("service.name", ""))
            for scope in resource.scope_spans:
                found += [_span(service, each) for each in scope.spans]
        with self._lock:
            self._spans += found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            collector.take(_request(body, self.headers["content-type"]))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _request(body: bytes, media_type: str) -> ExportTraceServiceRequest:
    if media_type == "application/x-protobuf":
        return ExportTraceServiceRequest.FromString(body)
    return json_format.ParseDict(_with_bytes(json.loads(body)), ExportTraceServiceRequest())


def _with_bytes(content: Any) -> Any:
    """OTLP's JSON has ids in hexadecimal, where protobuf's has base64."""
    if isinstance(content, dict):
        ids = ("traceId", "spanId", "parentSpanId")
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in ids else _with_bytes(value)
            for key, value in content.items()
        }
    return [_with_bytes(each) for each in content] if isinstance(content, list) else content


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        events=[(event.name, _attributes(event.attributes)) for event in span.events],
        failed=span.status.code == ERROR,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
