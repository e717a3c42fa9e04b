"""Schemathesis' hooks for our service: what JSON Schema cannot say about a request.

A request that the schema allows is to be accepted; its own check knows no exception. Ours are these: that a place lies
within the map's circle, that bytes are a recording, and what belongs together or excludes each other. A refusal of such
a request has to give one of these reasons; any other is a finding. And of the 5xx it finds two allowed: those of a busy
machine.
"""

from __future__ import annotations

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

BEYOND_SCHEMA = (
    "lies beyond the map",
    "the audio is empty",
    "not readable as audio",
    "a search takes one of these at a time",
    "there is nothing to search with",
    "the field 'audio' is missing",  # nor is `like` anywhere
    "stage1 and stage2 belong together",
    "offset + k is at most",
    "a search that requires a pitch",
)


@schemathesis.check
def what_the_schema_allows_is_accepted(ctx, response, case):  # type: ignore[no-untyped-def]
    if response.status_code in (400, 422):
        message = response.json()["error"]["message"]
        if any(reason in message for reason in BEYOND_SCHEMA):
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.check
def errors_come_in_the_envelope(ctx, response, case):  # type: ignore[no-untyped-def]
    if response.status_code >= 400 and case.method != "HEAD":
        error = response.json()["error"]
        assert set(error) == {"code", "message"}
        assert error["message"]
        assert "\n" not in error["message"]
        # 503 and 504 say that the machine is busy; tests have no say in that. Nothing goes wrong inside.
        assert response.status_code in (503, 504) or response.status_code < 500
