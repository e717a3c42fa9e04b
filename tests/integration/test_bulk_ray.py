"""The same shards on a real Ray cluster of this machine: equal files, and a worker that is killed is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from support import bulk

from timbrel.bulk.on_ray import RayWorkers
from timbrel.bulk.workers import LocalWorkers, map_tasks
from timbrel.errors import BundleError, Unavailable

# Not imported here: it reads its environment then, and ``RayWorkers`` sets it.
pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: scripts/setup serve pipeline scale encoders dev"
)

SHARD = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and the library that local processes made of them."""
    folder = tmp_path_factory.mktemp("ray")
    bulk.write_inputs(folder, voices=10)
    with LocalWorkers(2) as workers:
        assert bulk.run(folder, workers, shard_patches=SHARD).shards == 4
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayWorkers]:
    with RayWorkers(None, 2) as workers:
        assert workers.count == 2
        assert workers.node_address == "127.0.0.1"
        yield workers


def anew(folder: Path, out: Path) -> Path:
    """The same inputs elsewhere, with nothing done."""
    for name in ("banks", "models"):
        (out / name).symlink_to(folder / name)
    return out


def test_ray_makes_the_same_and_a_killed_worker_costs_nothing(
    folder: Path, cluster: RayWorkers, tmp_path: Path
) -> None:
    out = anew(folder, tmp_path)
    killed: list[int] = []

    def kill_one(done: int, found: int, patches: int) -> None:
        at_work = [each for each in psutil.Process().children(recursive=True) if is_at_work(each)]
        if not killed and at_work:
            at_work[0].kill()
            killed.append(at_work[0].pid)

    figures = bulk.run(out, cluster, shard_patches=SHARD, progress=kill_one)
    assert len(killed) == 1
    assert (figures.shards, figures.found) == (4, 0)
    assert bulk.contents(out / "library") == bulk.contents(folder / "library")
    # Shards travel between the two: what Ray made need not be made again.
    with LocalWorkers(1) as workers:
        assert bulk.run(out, workers, shard_patches=SHARD).found == 4


def is_at_work(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith("ray::_call")
    except psutil.Error:
        return False


def test_errors_come_back_as_they_are(folder: Path, cluster: RayWorkers, tmp_path: Path) -> None:
    out = anew(folder, tmp_path)
    recipe = bulk.recipe_of(out)
    wrong = replace(recipe, models=(replace(recipe.models[0], sha256="0" * 64), *recipe.models[1:]))
    with pytest.raises(BundleError, match="give every machine the same bundle"):
        bulk.run(out, cluster, shard_patches=SHARD, recipe=wrong)


def test_a_task_that_ends_its_process_again_and_again_is_told(cluster: RayWorkers) -> None:
    with pytest.raises(
        Unavailable, match=r"^7 lost its process 2 times .* run it again; what is done is kept$"
    ):
        list(map_tasks(cluster, os._exit, [7], retries=1))


def test_a_cluster_that_is_not_there_is_told() -> None:
    with pytest.raises(Unavailable, match=r"^the Ray cluster 127.0.0.1:9 does not answer \(.*refused"):
        RayWorkers("127.0.0.1:9").__enter__()
