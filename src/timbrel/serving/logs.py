"""What the service logs: a line for every request, and whatever else happens, as text or as one JSON object a line.

    {"time": "2026-05-01T12:00:00.123Z", "level": "info", "message": "search: ok", "component": "service",
     "logger": "timbrel.requests", "pid": 812, "request_id": "6b0f…", "trace_id": "0af7…", "span_id": "b7ad…",
     "transport": "http", "endpoint": "search", "outcome": "ok", "status": 200, "seconds": 0.0421, "bundle": "2274…"}

A line never holds what was asked with: no recording, no path, no query, no header but the request's id.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from timbrel.settings import LogFormat

SERVICE = "service"
_NOTHING: Mapping[str, str] = {}
_bound: ContextVar[Mapping[str, str]] = ContextVar("timbrel_log_fields", default=_NOTHING)
_requests = logging.getLogger("timbrel.requests")
# Those that BentoML gives handlers of their own.
_FRAMEWORKS = ("bentoml", "uvicorn.error", "circus")


def configure(form: LogFormat) -> None:
    """For this process, whatever BentoML has configured: JSON goes to standard error, text where BentoML's goes."""
    logging.getLogger("timbrel").setLevel(logging.INFO)
    if form is LogFormat.TEXT:
        return
    logging.captureWarnings(True)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]
    for name in _FRAMEWORKS:
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True


def bind(**fields: str) -> None:
    """Every line that is logged for the current request has these from now on. Call it in the request's own task."""
    _bound.set(fields)


def answered(
    *, transport: str, endpoint: str, outcome: str, status: int | None, seconds: float, **more: str | None
) -> None:
    """Log the current request. ``status`` is HTTP's, over gRPC the corresponding one; None if nobody heard it."""
    level = logging.ERROR if status is not None and status >= 500 else logging.INFO
    if not _requests.isEnabledFor(level):
        return
    fields = {
        "transport": transport,
        "endpoint": endpoint,
        "outcome": outcome,
        "status": status,
        "seconds": round(seconds, 6),
        **more,
    }
    text = " ".join(f"{name}={value}" for name, value in (fields | dict(_bound.get())).items())
    _requests.log(level, "%s", _Message(f"{endpoint}: {outcome}", text), extra={"fields": fields})


class _Message:
    """Short where the fields are told apart from it, long in a line of text."""

    def __init__(self, short: str, long: str) -> None:
        self.short = short
        self.long = long

    def __str__(self) -> str:
        return self.long


class JsonFormatter(logging.Formatter):
    """One JSON object, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else None
        message = first.short if isinstance(first, _Message) else record.getMessage()
        more: dict[str, Any] = {"logger": record.name, "pid": record.process, **_bound.get()}
        more |= getattr(record, "fields", {})
        if record.exc_info:
            more["exception"] = self.formatException(record.exc_info)
        return json_line(SERVICE, record.levelname.lower(), message, when=record.created, **more)


def json_line(component: str, level: str, message: str, *, when: float | None = None, **more: Any) -> str:
    """``component`` is service, triton or launcher; ``when`` is in seconds since 1970, now if it is not given."""
    moment = datetime.now(UTC) if when is None else datetime.fromtimestamp(when, UTC)
    time = moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    entry = {"time": time, "level": level, "message": message, "component": component, **more}
    return json.dumps(entry, ensure_ascii=False, default=str)


class JsonStream:
    """Standard error, for several threads that write whole lines of JSON. Callable as the launcher's ``say``."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def __call__(self, text: str, level: str = "info") -> None:
        self.write(json_line("launcher", level, text, pid=os.getpid()))

    def write(self, line: str) -> None:
        with self._lock:
            self._stream.write(f"{line}\n")
            self._stream.flush()
