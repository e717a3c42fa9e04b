"""Traces and logs of a running service, as a collector of ours and a reader of its lines get them."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry import trace
from support.collector import Collector, Span, collecting
from support.recordings import wav_note
from support.serving import Serving, until
from support.tiny_bundle import tiny_bundle_folder

import timbrel
from timbrel import settings
from timbrel.errors import ConfigurationError
from timbrel.library.bundle import Bundle
from timbrel.serving import tracing
from timbrel.serving.triton_files import find_wheel
from timbrel.v1 import timbrel_pb2 as pb
from timbrel.v1 import timbrel_pb2_grpc as pb_grpc

SECONDS = 60
_numbers = itertools.count(1)
STAGES = ["engine.f0", "engine.gate", "engine.stage1", "engine.index", "engine.stage2"]
TRITONS = {"InferRequest", "timbre_encoder", "compute"}
INFER = "inference.GRPCInferenceService/ModelInfer"


@dataclass
class Watched:
    """A service with the real Triton, its collector, and what it wrote so far: objects, if all of it is JSON."""

    serving: Serving
    collector: Collector

    def written(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in self.serving.output.read_text().splitlines(keepends=True)
            if "\n" in line
        ]

    def requests(self, request_id: str) -> list[dict[str, Any]]:
        """The lines of requests of this name, when there are any."""

        def found() -> list[dict[str, Any]]:
            lines = [line for line in self.written() if line.get("request_id") == request_id]
            return [line for line in lines if line["logger"] == "timbrel.requests"]

        until(lambda: bool(found()), SECONDS)
        return found()

    def whole(self, trace_id: str, *names: str) -> list[Span]:
        """The spans of a trace, when there are at least these."""

        def there() -> bool:
            have = [span.name for span in self.collector.trace(trace_id)]
            return all(have.count(name) >= names.count(name) for name in names)

        self.collector.wait(there)
        return self.collector.trace(trace_id)

    def searched(self, ask: Callable[[trace.SpanContext], None]) -> tuple[trace.SpanContext, list[Span]]:
        """Search within a new trace; its spans. Ours are always there, Triton's exporter loses some of its own: then
        ask again.
        """
        for _ in range(6):
            context = _context()
            ask(context)
            trace_id = _hex(context)[0]
            self.whole(trace_id, *STAGES, INFER, "read")

            def traced(trace_id: str = trace_id) -> bool:
                return {span.name for span in self.collector.trace(trace_id)} >= TRITONS

            try:
                until(traced, 10)
            except AssertionError:
                continue
            return context, self.collector.trace(trace_id)
        raise AssertionError("Triton sends no spans")


@pytest.fixture(scope="module", autouse=True)
def _exporter() -> None:
    try:
        tracing.check(settings.load({"TIMBREL_TRACES": "http://127.0.0.1:4318"}))
    except ConfigurationError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    with collecting() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        running = Serving.start(
            tiny_bundle_folder(),
            tmp_path_factory.mktemp("traces"),
            workers="1",
            log="json",
            traces=collector.endpoint,
        )
        watched = Watched(running, collector)
        try:
            until(lambda: "ready: " in running.output.read_text() or running.process.poll() is not None)
            assert running.process.poll() is None, running.output.read_text()
            yield watched
        finally:
            running.stop()


@pytest.fixture(scope="module")
def stub(watched: Watched) -> Iterator[pb_grpc.TimbrelStub]:
    with watched.serving.channel() as channel:
        yield pb_grpc.TimbrelStub(channel)


@pytest.fixture(scope="module")
def bundle_id() -> str:
    bundle = Bundle.open(tiny_bundle_folder())
    bundle.close()
    return bundle.id


def _context(*, sampled: bool = True) -> trace.SpanContext:
    """A caller's span, another each time."""
    number = next(_numbers)
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else 0)
    return trace.SpanContext(
        trace_id=(0xABC << 64) + number, span_id=0xF00 + number, is_remote=False, trace_flags=flags
    )


def _hex(context: trace.SpanContext) -> tuple[str, str]:
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _request_id(context: trace.SpanContext) -> str:
    return f"studio-{context.span_id}"


def _traceparent(context: trace.SpanContext) -> str:
    return "00-{}-{}-{:02x}".format(*_hex(context), context.trace_flags)


def _is_the_trace_of_a_search(spans: list[Span], caller: str, bundle_id: str) -> Span:
    """server ─► stages ─► Triton's client ─► Triton; returns the first."""
    names = {span.id: span for span in spans}
    server = next(span for span in spans if span.kind == "server" and span.service == "timbrel")
    assert server.parent == caller
    assert server.attributes["timbrel.bundle"] == bundle_id
    assert server.attributes["timbrel.endpoint"] == "search"
    assert server.attributes["timbrel.outcome"] == "ok"
    assert server.attributes["timbrel.gate_decision"] == "pitched"
    assert server.attributes["timbrel.hits"] == 2
    assert not server.failed

    stages = [span for span in spans if span.name.startswith("engine.")]
    assert [span.name for span in stages] == STAGES
    assert {span.parent for span in stages} == {server.id}
    by_name = {span.name: span for span in stages}
    assert by_name["engine.gate"].attributes["timbrel.gate_decision"] == "pitched"
    candidates = by_name["engine.index"].attributes["timbrel.candidates"]
    assert 2 <= candidates <= server.attributes["timbrel.total"] * 8
    for span in stages:
        assert server.began <= span.began <= span.ended <= server.ended

    (call,) = (span for span in spans if span.name == INFER)
    assert call.kind == "client"
    assert call.parent == by_name["engine.stage1"].id
    assert call.attributes["timbrel.model"] == "timbre_encoder"
    assert call.attributes["timbrel.model_version"]
    assert call.attributes["server.address"] == "127.0.0.1"

    triton = [span for span in spans if span.service == "timbrel-triton"]
    (request,) = (span for span in triton if span.name == "InferRequest")
    assert request.parent == call.id
    (model,) = (span for span in triton if span.name == "timbre_encoder")
    assert model.parent == request.id
    assert str(model.attributes["triton.model_version"]) == call.attributes["timbrel.model_version"]
    (compute,) = (span for span in triton if span.name == "compute")
    assert names[compute.parent] is model
    assert not any(span.failed for span in spans)
    return server


def test_a_search_over_http_by_our_client_is_one_trace_and_one_line(watched: Watched, bundle_id: str) -> None:
    def ask(context: trace.SpanContext) -> None:
        with timbrel.Client(watched.serving.url) as client, trace.use_span(trace.NonRecordingSpan(context)):
            assert len(client.search(wav_note(), k=2).hits) == 2

    context, spans = watched.searched(ask)
    trace_id, caller = _hex(context)
    server = _is_the_trace_of_a_search(spans, caller, bundle_id)
    assert server.name == "POST /search"
    assert server.attributes["http.request.method"] == "POST"
    assert server.attributes["http.route"] == "/search"
    assert server.attributes["http.response.status_code"] == 200
    (read,) = (span for span in spans if span.name == "read")
    assert read.parent == server.id
    assert read.attributes["timbrel.recordings"] == 1

    (line,) = watched.requests(str(server.attributes["timbrel.request_id"]))
    assert (line["trace_id"], line["span_id"]) == (trace_id, server.id)
    assert line["message"] == "search: ok"
    assert line["level"] == "info"
    assert line["transport"] == "http"
    assert line["status"] == 200
    assert line["bundle"] == bundle_id
    assert 0 < line["seconds"] < SECONDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_a_search_over_grpc_is_one_trace_and_one_line(
    watched: Watched, stub: pb_grpc.TimbrelStub, bundle_id: str
) -> None:
    asked = pb.SearchRequest(recordings=pb.Recordings(audio=[wav_note()]), options=pb.SearchOptions(k=2))

    def ask(context: trace.SpanContext) -> None:
        metadata = (("traceparent", _traceparent(context)), ("x-request-id", _request_id(context)))
        assert len(stub.Search(asked, timeout=SECONDS, metadata=metadata).hits) == 2

    context, spans = watched.searched(ask)
    (trace_id, caller), name = _hex(context), "timbrel.v1.Timbrel/Search"
    server = _is_the_trace_of_a_search(spans, caller, bundle_id)
    assert server.name == name
    assert server.attributes["rpc.system.name"] == "grpc"
    assert server.attributes["rpc.method"] == name
    assert server.attributes["rpc.response.status_code"] == "OK"
    assert server.attributes["timbrel.request_id"] == _request_id(context)

    (line,) = watched.requests(_request_id(context))
    assert (line["trace_id"], line["span_id"]) == (trace_id, server.id)
    assert (line["transport"], line["endpoint"], line["outcome"]) == ("grpc", "search", "ok")
    assert (line["status"], line["grpc_status"], line["bundle"]) == (200, "OK", bundle_id)


def test_our_client_over_grpc_passes_its_trace_on(watched: Watched) -> None:
    context = _context()
    address = f"grpc://{watched.serving.grpc_target}"
    with timbrel.Client(address) as client, trace.use_span(trace.NonRecordingSpan(context)):
        client.synthesize(x=0.1, y=0.1, pitch=60, seconds=0.2)
    names = ("engine.generate", "engine.decode", INFER, INFER)
    spans = watched.whole(_hex(context)[0], "timbrel.v1.Timbrel/Synthesize", *names)
    models = {span.attributes["timbrel.model"] for span in spans if span.name == INFER}
    assert models == {"generator", "codec_decoder"}


def test_refusals_are_in_both_with_their_code_and_nothing_of_what_was_sent(
    watched: Watched, stub: pb_grpc.TimbrelStub
) -> None:
    secret = "private-holiday-recording"
    over_http, over_grpc, nowhere = _context(), _context(), _context()
    with watched.serving.client() as client:
        answer = client.post(
            "/search",
            files={"audio": (f"{secret}.wav", b"no audio")},
            data={"family": secret},
            headers={
                "traceparent": _traceparent(over_http),
                "x-request-id": "refused-1",
                "authorization": secret,
            },
        )
        assert answer.status_code == 400
        assert answer.headers["x-request-id"] == "refused-1"
        lost = client.get(
            f"/{secret}?{secret}",
            headers={"traceparent": _traceparent(nowhere), "x-request-id": f"no {secret}"},
        )
        assert lost.status_code == 404
        ours = lost.headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", ours)
    asked = pb.SearchRequest(recordings=pb.Recordings(audio=[b"no audio"]))
    metadata = (("traceparent", _traceparent(over_grpc)), ("x-request-id", "refused-2"))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Search(asked, timeout=SECONDS, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    code = answer.json()["error"]["code"]
    for context, name, request_id, codes in (
        (over_http, "POST /search", "refused-1", {code}),
        (over_grpc, "timbrel.v1.Timbrel/Search", "refused-2", {"unreadable_audio"}),
        (nowhere, "GET", ours, {"not_found"}),
    ):
        spans = watched.whole(_hex(context)[0], name)
        server = next(span for span in spans if span.name == name)
        assert {server.attributes["error.type"], server.attributes["timbrel.outcome"]} == codes
        # The caller's mistake is no failure of the server.
        assert not server.failed
        (line,) = watched.requests(request_id)
        assert {line["outcome"]} == codes
        assert line["trace_id"] == _hex(context)[0]
        assert line["level"] == "info"
    assert watched.requests("refused-2")[0]["grpc_status"] == "INVALID_ARGUMENT"
    assert secret not in repr(watched.collector.spans())
    assert secret not in watched.serving.output.read_text()
    assert secret not in watched.serving.log("service")


def test_each_request_of_a_batch_has_a_span_and_a_line(watched: Watched, stub: pb_grpc.TimbrelStub) -> None:
    context = _context()
    good = pb.SynthesizeRequest(x=0, y=0, pitch=60, seconds=0.2)
    bad = pb.SynthesizeRequest(x=0, y=0, pitch=1, seconds=0.2)
    metadata = (("traceparent", _traceparent(context)), ("x-request-id", "batch-1"))
    answers = list(stub.SynthesizeBatch(iter([good, bad]), timeout=SECONDS, metadata=metadata))
    assert len(answers) == 2
    name = "timbrel.v1.Timbrel/SynthesizeBatch"
    spans = watched.whole(_hex(context)[0], name, "synthesize", "synthesize", "engine.generate")
    (server,) = (span for span in spans if span.name == name)
    parts = [span for span in spans if span.name == "synthesize"]
    assert {span.parent for span in parts} == {server.id}
    assert [span.attributes["timbrel.outcome"] for span in parts] == ["ok", "invalid_input"]
    (generated,) = (span for span in spans if span.name == "engine.generate")
    assert generated.parent == parts[0].id
    until(lambda: len(watched.requests("batch-1")) == 2, SECONDS)
    assert {line["span_id"] for line in watched.requests("batch-1")} == {span.id for span in parts}


def test_what_a_caller_does_not_sample_is_logged_and_sent_nowhere(watched: Watched) -> None:
    unsampled, after = _context(sampled=False), _context()
    with watched.serving.client() as client:
        for context in (unsampled, after):
            headers = {"traceparent": _traceparent(context), "x-request-id": f"sample-{context.span_id}"}
            body = {"x": 0, "y": 0, "pitch": 60, "seconds": 0.2}
            assert client.post("/synthesize", json=body, headers=headers).status_code == 200
    watched.whole(_hex(after)[0], "POST /synthesize", INFER, INFER)
    assert watched.collector.trace(_hex(unsampled)[0]) == []
    (line,) = watched.requests(f"sample-{unsampled.span_id}")
    assert line["trace_id"] == _hex(unsampled)[0]


def test_health_is_in_neither(watched: Watched) -> None:
    since = time.time_ns()

    def begun() -> list[str]:
        """Without those of earlier requests, which may come late."""
        return [span.name for span in watched.collector.spans() if span.began >= since]

    with watched.serving.client() as client:
        for _ in range(3):
            assert client.get("/readyz", headers={"x-request-id": "health-1"}).status_code == 200
        assert client.get("/info", headers={"x-request-id": "info-1"}).status_code == 200
    watched.requests("info-1")
    watched.collector.wait(lambda: bool(begun()))
    assert begun() == ["GET /info"]
    assert not any(line.get("request_id") == "health-1" for line in watched.written())


def test_from_start_to_end_every_line_is_json(watched: Watched) -> None:
    """The last of this module: it ends the service."""
    context = _context()
    with watched.serving.client() as client:
        client.get("/patches", headers={"traceparent": _traceparent(context)})
    assert watched.serving.stop() == 0
    # What waited was sent before the end.
    assert [span.name for span in watched.collector.trace(_hex(context)[0])] == ["GET /patches"]
    text = watched.serving.output.read_text()
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() >= {"time", "level", "message", "component"} for line in lines)
    said = [line["message"] for line in lines if line["component"] == "launcher"]
    assert said[-2:] == ["stopping …", "stopped"]
    assert any(message.startswith("ready: ") for message in said)
    triton = [line for line in lines if line["component"] == "triton"]
    assert any(line["message"].startswith("Started GRPCInferenceService") for line in triton)
    assert any("successfully unloaded" in line["message"] and line["level"] == "info" for line in triton)
    assert any(line["message"] == "GET /patches" or line.get("endpoint") == "patches" for line in lines)
    assert not any("Traceback" in line["message"] for line in lines)


def test_a_start_that_fails_is_told_in_json(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        running = Serving.start(tiny_bundle_folder(), tmp_path, log="json", http_port=port)
        assert running.wait_end() == 2
    (line,) = map(json.loads, running.lines())
    assert (line["level"], line["component"]) == ("error", "launcher")
    assert f"port {port}" in line["message"]


def test_without_its_collector_the_service_answers_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        running = Serving.start(
            tiny_bundle_folder(), tmp_path, engine="inprocess", workers="1", traces=endpoint
        ).wait_ready()
        warning = f"traces cannot be sent to {endpoint}/v1/traces"

        def answer() -> None:
            found = client.post("/search", files={"audio": ("a.wav", wav_note())}, data={"k": "1"})
            assert found.status_code == 200

        try:
            with httpx.Client(base_url=running.url, timeout=SECONDS) as client:
                answer()
                until(lambda: warning in running.log("service"), SECONDS)
                for _ in range(20):
                    answer()
        finally:
            assert running.stop() == 0
    log = running.log("service")
    assert log.count(warning) == 1
    assert "Traceback" not in log
    assert "opentelemetry" not in log.lower()
    # In text, too, a line for each request has its name and its trace.
    lines = [line for line in log.splitlines() if "endpoint=search" in line]
    assert len(lines) == 21
    assert all(
        re.search(r"outcome=ok status=200 .*request_id=[0-9a-f]{32} trace_id=[0-9a-f]{32}", each)
        for each in lines
    )
