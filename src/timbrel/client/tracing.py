"""A caller that traces its own work with OpenTelemetry finds ours in the same trace."""

from __future__ import annotations

import sys


def trace_headers() -> dict[str, str]:
    """W3C ``traceparent`` and ``tracestate`` of the caller's current span; nothing if it has none.

    Who has not imported OpenTelemetry has no span, and nothing is imported for it.
    """
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers
