"""Copies among many patches: the same decisions as the comparison with every one; tasks on processes that end."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from timbrel.bulk.copies import Copies
from timbrel.bulk.workers import LocalWorkers, map_tasks
from timbrel.errors import DataError, Unavailable
from timbrel.notes import selection
from timbrel.notes.selection import Duplicates


@pytest.mark.parametrize("threshold", [0.5, 1.0, 3.0])
def test_the_bound_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    """Crowds of pictures around a few, at every distance from far below the threshold to far above it."""
    rng = np.random.default_rng(4)
    centres = np.clip(rng.normal(15, 20, (6, 3, 24, 40)), 0, None)
    images = []
    for number in range(160):
        spread = threshold * rng.choice([0.3, 0.9, 1.1, 1.3, 2.0, 8.0])
        image = centres[number % 6] + rng.normal(0, spread, centres[0].shape)
        images.append(np.clip(image, 0, selection.FLOOR_DB).astype(np.float32))
    monkeypatch.setattr(selection, "picture", lambda note: note)  # what is compared, in place of audio
    everyone = Duplicates(threshold)
    expected = [everyone.check(str(n), list(image)) for n, image in enumerate(images)]
    with Copies(threshold, most=len(images), folder=tmp_path) as copies:
        found = [copies.check(str(n), image) for n, image in enumerate(images)]
    assert found == expected
    assert 20 < sum(twin is not None for twin in expected) < 150
    assert list(tmp_path.iterdir()) == []


def _work(task: tuple[str, int]) -> int:
    what, number = task
    marker = Path(what) / str(number)
    if what and not marker.exists():
        marker.touch()
        os._exit(9)  # the first time
    if number == 13:
        raise DataError("thirteen")
    return number * number


def test_a_task_whose_process_ends_is_done_by_another(tmp_path: Path) -> None:
    tasks = [(str(tmp_path) if number % 4 == 0 else "", number) for number in range(9)]
    with LocalWorkers(2) as workers:
        assert sorted(map_tasks(workers, _work, tasks)) == [number * number for number in range(9)]
        assert len(list(tmp_path.iterdir())) == 3
        with pytest.raises(DataError, match="thirteen"):
            list(map_tasks(workers, _work, [("", 13)]))
        with pytest.raises(Unavailable, match=r"^5 lost its process 3 times"):
            list(map_tasks(workers, os._exit, [5], retries=2))


def test_few_tasks_are_in_flight(tmp_path: Path) -> None:
    asked: list[int] = []

    def tasks() -> object:
        for number in range(30):
            asked.append(number)
            yield ("", number if number != 13 else 14)

    done = 0
    with LocalWorkers(2) as workers:
        for _ in map_tasks(workers, _work, tasks()):  # type: ignore[arg-type]
            done += 1
            assert len(asked) - done <= 4
            assert os.environ["OMP_NUM_THREADS"] == "1"
    assert done == 30
