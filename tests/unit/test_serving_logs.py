"""Lines of JSON: of what is logged here, and of what others wrote."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from pathlib import Path

import pytest

from timbrel.serving import logs
from timbrel.serving.forwarding import Forwarder, as_json
from timbrel.serving.logs import JsonFormatter, JsonStream
from timbrel.settings import LogFormat


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="timbrel")
    return caplog


def _json(record: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return dict(json.loads(line))


def test_a_request_is_short_beside_its_fields_and_whole_in_text(records: pytest.LogCaptureFixture) -> None:
    async def request() -> None:
        logs.bind(request_id="r-1", trace_id="ab")
        logs.answered(
            transport="http", endpoint="search", outcome="ok", status=200, seconds=0.12345678, bundle="2274"
        )

    asyncio.run(request())
    (record,) = records.records
    told = "transport=http endpoint=search outcome=ok status=200 seconds=0.123457 bundle=2274"
    assert record.getMessage() == f"{told} request_id=r-1 trace_id=ab"
    record.created = 1_700_000_000.5
    # Here, outside of the request's task, nothing is bound.
    assert _json(record) == {
        "time": "2023-11-14T22:13:20.500Z", "level": "info", "message": "search: ok", "component": "service",
        "logger": "timbrel.requests", "pid": record.process, "transport": "http", "endpoint": "search",
        "outcome": "ok", "status": 200, "seconds": 0.123457, "bundle": "2274",
    }  # fmt: skip


def test_what_is_bound_to_a_request_stays_in_its_task(records: pytest.LogCaptureFixture) -> None:
    seen: dict[str, object] = {}

    async def request(name: str, after: asyncio.Event, tell: asyncio.Event) -> None:
        logs.bind(request_id=name)
        tell.set()
        await after.wait()
        record = logging.makeLogRecord({"name": "timbrel", "msg": "within"})
        seen[name] = _json(record)["request_id"]

    async def both() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(request("a", second, first), request("b", first, second))

    asyncio.run(both())
    assert seen == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("status", "level"), [(200, "INFO"), (404, "INFO"), (None, "INFO"), (500, "ERROR"), (503, "ERROR")]
)
def test_what_is_our_fault_is_an_error(
    records: pytest.LogCaptureFixture, status: int | None, level: str
) -> None:
    logs.answered(transport="grpc", endpoint="info", outcome="x", status=status, seconds=0.0)
    (record,) = records.records
    assert record.levelname == level


def test_an_exception_is_in_the_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("timbrel", logging.ERROR, __file__, 1, "it %s", ("broke",), sys.exc_info())
    told = _json(record)
    assert told["message"] == "it broke"
    assert str(told["exception"]).endswith("ValueError: two\nlines")


def test_json_takes_the_place_of_what_the_frameworks_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(uvicorn, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(uvicorn, "propagate", False)
    monkeypatch.setattr(logging.getLogger("timbrel"), "level", logging.NOTSET)
    logs.configure(LogFormat.TEXT)
    assert len(uvicorn.handlers) == 1
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    try:
        logs.configure(LogFormat.JSON)
        uvicorn.error("gone")
    finally:
        logging.captureWarnings(False)
    assert json.loads(written.getvalue())["message"] == "gone"
    assert json.loads(written.getvalue())["logger"] == "uvicorn.error"


@pytest.mark.parametrize(
    ("line", "level", "message", "logger"),
    [
        (
            'I1122 23:54:25.123456 812 server.cc:305] "All models are stopped"',
            "info",
            "All models are stopped",
            "server.cc:305",
        ),
        ("W1122 23:54:25.1 812 pinned.cc:1] no GPU", "warning", "no GPU", "pinned.cc:1"),
        ("E1122 23:54:25.1 812 model.cc:7] failed: {", "error", "failed: {", "model.cc:7"),
        ("Traceback (most recent call last):", "info", "Traceback (most recent call last):", None),
        ('{"not": "ours"}', "info", '{"not": "ours"}', None),
        ('{"cut', "info", '{"cut', None),
        ('{"time": 1, "component": 2', "info", '{"time": 1, "component": 2', None),
    ],
)
def test_lines_of_others_become_json(line: str, level: str, message: str, logger: str | None) -> None:
    told = json.loads(as_json("triton", line))
    assert (told["level"], told["message"], told.get("logger")) == (level, message, logger)
    assert told["component"] == "triton"


def test_lines_of_ours_are_passed_on_as_they_are() -> None:
    line = logs.json_line("service", "info", "grüße", request_id="1")
    assert as_json("service", line) == line
    assert "grüße" in line


def test_the_forwarder_passes_on_whole_lines_and_at_its_end_the_rest(tmp_path: Path) -> None:
    log, written = tmp_path / "triton.log", io.StringIO()
    log.write_bytes(b"before\n\n+----+\n")
    forwarder = Forwarder(JsonStream(written))
    forwarder.follow("triton", log)
    with log.open("ab", buffering=0) as output:
        output.write(b"half gr")
        output.write("ü".encode()[:1])
        output.write("ü".encode()[1:] + b"n\nno end")
    forwarder.close()
    told = [json.loads(line)["message"] for line in written.getvalue().splitlines()]
    assert told == ["before", "half grün", "no end"]
