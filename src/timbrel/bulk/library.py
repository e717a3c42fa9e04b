"""A library of any size: patches ─► shards, made wherever there are workers ─► one folder as the library stage makes.

What is whole is never made again: a run that was killed, wherever, is run again. What is held in memory is the table of
the patches (about a kilobyte each), a batch of audio per worker, and one shard while they are put together.
"""

from __future__ import annotations

import csv
import fcntl
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.bulk import shard_files
from timbrel.bulk.copies import Copies
from timbrel.bulk.rendering import Recipe, ShardTask, drop_of, make_shard
from timbrel.bulk.shard_files import Drop, Shard
from timbrel.bulk.workers import Workers, map_tasks
from timbrel.errors import DataError, Unavailable
from timbrel.files import atomic_write, put_folder
from timbrel.library.writing import LibraryFigures, write_library
from timbrel.notes.patches import Patch

# (shards done, of these found whole, patches in them so far)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkFigures:
    """``shards`` of which ``found`` were there already; of ``tried`` patches what the ``library`` holds, and by reason
    how many it does not.
    """

    shards: int
    found: int
    tried: int
    library: LibraryFigures
    dropped: dict[str, int]


def render_library(
    patches: Iterable[Patch],
    out: Path,
    recipe: Recipe,
    workers: Workers,
    *,
    shards: Path,
    shard_patches: int,
    duplicate_db: float,
    retries: int = 3,
    progress: Progress = lambda done, found, patches: None,
) -> BulkFigures:
    """Render and embed ``patches`` into the folder ``out``: what ``library.build.build_library`` writes, with
    report.json and dropped.csv.

    Args:
        shards: folder that keeps what is done; one run at a time works in it.
        shard_patches: patches of a shard. Another number makes other shards: all are made anew.
        duplicate_db: patches nearer than this to a former one are dropped (``notes.selection.distance_db``).
        retries: how often a shard may lose its process.

    Raises:
        DataError: there is no patch, none is kept, or a soundfont is not there.
        BundleError: the models are not those of ``recipe``.
        Unavailable: another run works in ``shards``, or a shard lost its process too often.
    """
    shards.mkdir(parents=True, exist_ok=True)
    with _alone(shards):
        plan = _Plan(patches, recipe, shards, shard_patches)
        for done, made in enumerate(map_tasks(workers, make_shard, plan.missing(), retries=retries), start=1):
            progress(plan.found + done, plan.found, plan.patches_found + made.patches)
        if not plan.keys:
            raise DataError("there is no patch to render: lay .syx or .sf2 files into the banks' folder")
        figures = _put_together(plan, out, recipe, duplicate_db)
        _clean(shards, plan.keys)
    return figures


class _Plan:
    """Cuts patches into shards as they are asked for, and remembers the key of each."""

    def __init__(self, patches: Iterable[Patch], recipe: Recipe, folder: Path, size: int) -> None:
        self._patches = iter(patches)
        self._recipe = recipe
        self._size = size
        self._seen: dict[str, str] = {}
        self.folder = folder
        self.keys: list[str] = []
        self.copies: list[Drop] = []
        self.tried = self.found = self.patches_found = 0

    def missing(self) -> Iterator[ShardTask]:
        """The shards that are not there, or not whole."""
        fresh = self._fresh()
        while batch := tuple(islice(fresh, self._size)):
            key = self._recipe.key(batch)
            self.keys.append(key)
            held = shard_files.read(shard_files.path_of(self.folder, key), key)
            if held is not None:
                self.found += 1
                self.patches_found += len(held.patches)
                continue
            yield ShardTask(
                number=len(self.keys), patches=batch, recipe=self._recipe, key=key, folder=self.folder
            )

    def _fresh(self) -> Iterator[Patch]:
        """Patches that have not come before, byte for byte, names aside."""
        for patch in self._patches:
            self.tried += 1
            if patch.patch_id in self._seen:
                former = self._seen[patch.patch_id]
                self.copies.append(drop_of(patch, "duplicate", f"same bytes as {former}"))
                continue
            self._seen[patch.patch_id] = patch.name
            yield patch

    def shards(self) -> Iterator[Shard]:
        """Every shard in order. Raises DataError where one has gone bad since."""
        for key in self.keys:
            path = shard_files.path_of(self.folder, key)
            shard = shard_files.read(path, key)
            if shard is None:
                raise DataError(f"{path} was damaged while the library was put together: run it again")
            yield shard


def _put_together(plan: _Plan, out: Path, recipe: Recipe, duplicate_db: float) -> BulkFigures:
    """Two passes over the shards: what is a copy of a former patch; then the folder."""
    dropped: Counter[str] = Counter()
    kept: list[np.ndarray] = []
    renders = silent = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{out.name}.*"):  # by a run that was killed here; this one is alone
        shutil.rmtree(left, ignore_errors=True)
    built = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    built.chmod(0o755)
    try:
        with (
            Copies(duplicate_db, most=plan.tried, folder=built) as copies,
            _drop_table(built / "dropped.csv") as write_drop,
        ):

            def drop(each: Drop) -> None:
                dropped[each.reason] += 1
                write_drop(each)

            for each in plan.copies:
                drop(each)
            for shard in plan.shards():
                for each in shard.drops:
                    drop(each)
                stays = np.ones(len(shard.patches), dtype=bool)
                for number, (described, image) in enumerate(zip(shard.patches, shard.pictures, strict=True)):
                    patch = described.patch
                    twin = None if np.isnan(image).any() else copies.check(patch.patch_id, image)
                    if twin is not None:
                        stays[number] = False
                        drop(drop_of(patch, "duplicate", f"sounds like {twin}"))
                    else:
                        renders += len(described.renders)
                kept.append(stays)
                silent += shard.silent_renders
        if not renders:
            raise DataError(f"none of {plan.tried} patches is kept: {dict(dropped)}")
        staying = (
            each
            for shard, stays in zip(plan.shards(), kept, strict=True)
            for each, stay in zip(shard.patches, stays, strict=True)
            if stay
        )
        library = write_library(built, staying, renders=renders, encoder=recipe.models[0].sha256)
        figures = BulkFigures(
            shards=len(plan.keys), found=plan.found, tried=plan.tried, library=library,
            dropped=dict(sorted(dropped.items())),
        )  # fmt: skip
        with atomic_write(built / "report.json") as handle:
            told: dict[str, Any] = {**asdict(figures), "silent_renders": silent}
            del told["found"]  # how often the run was interrupted is no property of the library
            handle.write((json.dumps(told, indent=2, sort_keys=True) + "\n").encode())
        put_folder(built, out)
    finally:
        shutil.rmtree(built, ignore_errors=True)
    return figures


@contextmanager
def _drop_table(path: Path) -> Iterator[Callable[[Drop], None]]:
    """One line per dropped patch."""
    with atomic_write(path) as handle:
        text = TextIOWrapper(handle, encoding="utf-8", newline="")
        writer = csv.DictWriter(text, tuple(Drop.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        yield lambda each: writer.writerow(asdict(each))
        text.flush()
        text.detach()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder until the end, or until this process is gone. Raises Unavailable."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unavailable(
                f"another run works in {folder}: wait for it, or name another folder"
            ) from error
        yield


def _clean(folder: Path, keys: Sequence[str]) -> None:
    """Take away the shards of former inputs, and what a killed process had begun to write."""
    wanted = {shard_files.path_of(folder, key).name for key in keys}
    for path in folder.iterdir():
        if path.name != ".lock" and path.name not in wanted:
            path.unlink()
