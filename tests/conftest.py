"""Rules for every test: no telemetry, and in CI no test is skipped for a part that could have been installed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["DVC_NO_ANALYTICS"] = "true"

# What no installation can mend. Every other skip is a failure where CI is set.
EXCUSES = ("no GPU", "no network namespace", "NSynth is not here", "TIMBREL_SHARED is not set")


def excused(reason: str) -> bool:
    """Whether CI may skip a test for this reason."""
    return any(excuse.lower() in reason.lower() for excuse in EXCUSES)


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not excused(reason):
        report.outcome = "failed"
        report.longrepr = f"CI skips nothing that can be installed: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    _forbid_skip(report)  # type: ignore[arg-type]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _forbid_skip(report)  # type: ignore[arg-type]
    return report
