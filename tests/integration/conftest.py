"""One running service for all tests that only ask it questions."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from support.serving import Serving
from support.tiny_bundle import tiny_bundle_folder

from timbrel.serving.triton_files import find_wheel


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """`timbrel serve` with the real Triton and two workers, over the tiny bundle."""
    wheel, reason = find_wheel()
    if wheel is None:
        pytest.skip(f"Triton cannot run here: {reason}")
    running = Serving.start(tiny_bundle_folder(), tmp_path_factory.mktemp("serving"), workers="2")
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture
def http(serving: Serving) -> Iterator[httpx.Client]:
    with serving.client() as client:
        yield client
