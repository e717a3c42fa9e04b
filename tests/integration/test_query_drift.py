"""The alert on drift, by a real Prometheus over a real service: quiet on a normal stream, firing on a shifted one.

The rules are those of monitoring/prometheus/rules/drift.yml, with every duration divided by 90: six hours are four
minutes. benchmarks/drift.py does the same on the released bundle, with notes of real instruments.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.prometheus import Prometheus, hurried, needs_prometheus
from support.recordings import encoded
from support.serving import Serving, until
from support.tiny_bundle import KEYS, PLACES, tiny_bundle_folder
from support.tiny_models import SAMPLE_RATE, tone

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "monitoring" / "prometheus" / "rules" / "drift.yml"
FACTOR = 90.0
HELD_SECONDS = 15 * 60 / FACTOR  # the alert's ``for``
NORMAL, SHIFTED = 430, 250
PSI = "timbrel:query_drift:psi6h"
ALERT = "TimbrelQueryDrift"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Prometheus]]:
    serving = Serving.start(
        tiny_bundle_folder(), tmp_path_factory.mktemp("drifting"), workers="2", engine="inprocess"
    )
    try:
        serving.wait_ready()
        prometheus = Prometheus.start(
            tmp_path_factory.mktemp("prometheus"),
            targets=[f"127.0.0.1:{serving.ports.http}"],
            rules={"drift.yml": hurried(RULES.read_text(), FACTOR)},
        )
        try:
            until(lambda: len(prometheus.query("timbrel_reference_share")) == 32, 60)
            yield serving, prometheus
        finally:
            prometheus.stop()
    finally:
        serving.stop()


def _search(serving: Serving, recordings: list[np.ndarray]) -> None:
    """One search for each, from two clients."""

    def ask(some: list[np.ndarray]) -> None:
        with httpx.Client(base_url=serving.url, timeout=120, trust_env=False) as client:
            for samples in some:
                files = {"audio": ("clip", encoded(samples, SAMPLE_RATE, "WAV", "PCM_16"))}
                assert client.post("/search", files=files, data={"k": "10"}).status_code == 200

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, (recordings[::2], recordings[1::2])))


@cache
def _tone(key: float, x: float, y: float) -> np.ndarray:
    return tone(key, x, y, seconds=0.5, held=0.4)


def _like_the_library(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Patches of the library at its keys, a little out of tune, at any level, in light noise."""
    recordings = []
    for number in rng.integers(len(PLACES) + 2, size=count):
        key = float(rng.choice(KEYS)) + float(rng.choice((-0.2, 0.1)))
        if number == len(PLACES) + 1:
            samples = rng.uniform(-0.8, 0.8, SAMPLE_RATE // 2)
        else:
            octave = 12 if number == len(PLACES) else 0
            samples = _tone(key + octave, *((0.0, 0.3) if octave else PLACES[number]))
        noise = 1e-3 * rng.standard_normal(len(samples))
        recordings.append(samples * rng.uniform(0.1, 1.0) + noise)
    return recordings


def _low_and_dark(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """One dark sound, at the lowest keys alone."""
    keys = rng.uniform(46.0, 50.0, size=8)
    return [rng.uniform(0.1, 1.0) * _tone(float(rng.choice(keys)), -0.6, 0.6) for _ in range(count)]


def _asks(prometheus: Prometheus, queries: int) -> bool:
    return (prometheus.value('timbrel:query_cells:increase6h{quantity="embedding"}') or 0) >= queries


@needs_prometheus
def test_promtool_accepts_the_rules_and_their_tests() -> None:
    for command in (["check", "rules", RULES], ["test", "rules", RULES.parents[1] / "tests/drift_test.yml"]):
        done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_alert_is_quiet_on_a_normal_stream_and_fires_on_a_shifted_one(
    watched: tuple[Serving, Prometheus],
) -> None:
    serving, prometheus = watched
    rng = np.random.default_rng(11)

    _search(serving, _like_the_library(rng, NORMAL))
    until(lambda: _asks(prometheus, 400), 60)
    # Longer than it would have to hold for the alert to fire.
    normal, began = [], time.monotonic()
    while time.monotonic() - began < 1.5 * HELD_SECONDS:
        assert prometheus.alerts() == {}
        normal.append(max(prometheus.query(PSI).values()))
        time.sleep(0.25)
    assert _asks(prometheus, 400)  # or it would have been quiet for another reason
    assert max(normal) < 0.19, normal

    _search(serving, _low_and_dark(rng, SHIFTED))
    until(lambda: set(prometheus.alerts().values()) == {"firing"}, 60)
    assert set(prometheus.alerts()) <= {(ALERT, "embedding"), (ALERT, "pitch")}
    assert (ALERT, "pitch") in prometheus.alerts()
    assert min(prometheus.query(PSI).values()) > max(normal)
