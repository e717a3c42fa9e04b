"""Libraries in shards: the same as the stages make, whatever is killed meanwhile; what engines and files do wrong."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from support import bulk
from support.bulk import DUPLICATE_DB, PITCHES
from support.tiny_bundle import tiny_bundle_folder

from timbrel.bulk import shard_files
from timbrel.bulk.rendering import ShardTask, make_shard
from timbrel.bulk.workers import LocalWorkers
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.engine.asking import Vectors
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, DataError, Unavailable
from timbrel.files import sha256_of
from timbrel.library.build import build_index, build_library
from timbrel.library.bundle import Bundle
from timbrel.notes.banks import read_user_banks
from timbrel.notes.library import Plan, collect_patches
from timbrel.stages import library_pipeline

ROOT = Path(__file__).parents[2]
VOICES = 20
# A run takes some 15 s; a machine that does much else may take long over it.
PATIENCE = 280
SHARD = 5  # of 24 patches less one copy: five shards
OF_BOTH = ("patches.csv", "renders.csv", "stage1.npy", "stage2.npy", "previews.zip", "library.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    bulk.write_inputs(folder, voices=VOICES)
    with LocalWorkers(2) as workers:
        figures = bulk.run(folder, workers, shard_patches=SHARD)
    assert (figures.shards, figures.found, figures.tried) == (5, 0, 24)
    return folder


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """The same inputs, and no shard yet."""
    for name in ("banks", "models"):
        (tmp_path / name).symlink_to(whole / name)
    return tmp_path


def test_shards_give_what_the_stages_give(whole: Path, tmp_path: Path) -> None:
    plan = Plan(
        library_voices=0, library_pitches=PITCHES, library_velocity=100, training_voices=2, training_renders=3,
        training_pitches=(36, 84), training_velocities=(40, 127), validation_share=0.5, pitched_share=0.6,
        duplicate_db=DUPLICATE_DB,
    )  # fmt: skip
    told = collect_patches(
        tmp_path / "patches", plan, library_seed=1, training_seed=2, user_banks=whole / "banks"
    )
    models = OnnxModels({path.stem: path for path in (whole / "models").glob("*.onnx")})
    build_library(
        tmp_path / "patches",
        tmp_path / "library",
        models.run,
        MagnitudeCodecRuntime(models),
        encoder=sha256_of(whole / "models" / "timbre_encoder.onnx"),
        preview_seconds=0.5,
        preview_pitch=60,
    )
    models.close()
    in_shards, in_stages = bulk.contents(whole / "library"), bulk.contents(tmp_path / "library")
    assert {name: in_shards[name] == in_stages[name] for name in OF_BOTH} == dict.fromkeys(OF_BOTH, True)
    report = json.loads(in_shards["report.json"])
    assert report["dropped"] == told["dropped"]["library"]
    assert report["library"]["renders"] == told["renders"]["library"]


def test_every_drop_is_told_with_its_reason(whole: Path) -> None:
    lines = list(csv.DictReader((whole / "library" / "dropped.csv").read_text().splitlines()))
    told = {line["name"]: f"{line['reason']}: {line['detail']}" for line in lines}
    sine = next(p.patch_id for p in read_user_banks(whole / "banks").patches if p.name == "SINE")
    assert told["SINE AGAIN"] == "duplicate: same bytes as SINE"
    assert told["SINE ALIKE"] == f"duplicate: sounds like {sine}"
    assert told["FIXED"].startswith("inconsistent: ")
    report = json.loads((whole / "library" / "report.json").read_text())
    assert report["tried"] == report["library"]["patches"] + sum(report["dropped"].values()) == 24


def test_an_index_is_built_from_it(whole: Path) -> None:
    index = build_index(whole / "library")
    renders = json.loads((whole / "library" / "report.json").read_text())["library"]["renders"]
    assert len(index) == renders > 90
    assert set(index.ids_within(60, 1)) <= set(range(renders))


class Told:
    """Keeps what the steps tell about themselves."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.figures.update(values)

    def artifact(self, path: Path) -> None:
        assert path.exists()


def test_the_steps_make_a_bundle_that_answers(tmp_path: Path) -> None:
    """The settings file as it is in Git, but for what it names: another bundle's models, these banks, one process."""
    bulk.write_inputs(tmp_path, voices=6)
    given = yaml.safe_load((ROOT / library_pipeline.SETTINGS).read_text())
    given |= {"bundle": str(tiny_bundle_folder()), "banks": "banks", "out": "large"}
    given["executor"]["workers"] = 1
    wanted = library_pipeline.Settings.model_validate(given, strict=False)
    told = Told()
    for step in library_pipeline.STEPS.values():
        step(wanted, tmp_path, told)  # type: ignore[arg-type]
    assert (told.figures["patches_tried"], told.figures["dropped_duplicate"]) == (10, 2)
    built = Bundle.open(tmp_path / "large" / "bundle")
    assert len(built.patches) == told.figures["patches"] == 7
    assert [source.name for source in built.manifest.data] == ["tones", "banks"]
    engine = Engine(built, OnnxModels({name: built.path(name) for name in built.manifest.models}))
    row = built.rows_of(built.patches[2].patch_id)[2]
    asked = Vectors(built.index.vectors(np.array([row]))[0], built.stage2[row].astype(np.float32))
    (hit,) = engine.search(asked, k=1, pitch=built.renders[row].f0_midi).hits
    assert hit.patch_id == built.patches[2].patch_id
    assert built.preview(hit.patch_id)[:2] == b"\xff\xf3"  # a frame of MPEG-2 layer III
    engine.close()


def test_a_second_run_makes_nothing_and_gives_the_same(whole: Path) -> None:
    before = bulk.contents(whole / "library")
    written = {path: path.stat().st_mtime_ns for path in (whole / "shards").glob("*.npz")}
    with LocalWorkers(1) as workers:
        figures = bulk.run(whole, workers, shard_patches=SHARD)
    assert (figures.shards, figures.found) == (5, 5)
    assert {path: path.stat().st_mtime_ns for path in (whole / "shards").glob("*.npz")} == written
    assert bulk.contents(whole / "library") == before


def family(running: subprocess.Popen[bytes]) -> tuple[list[psutil.Process], dict[str, list[psutil.Process]]]:
    """All spawned processes of a run; and those of each kind, itself among them."""
    parent = psutil.Process(running.pid)
    below: list[psutil.Process] = []
    kinds: dict[str, list[psutil.Process]] = {"parent": [parent], "worker": [], "engine": []}
    for child in parent.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # just now
            if is_spawned(child):
                below.append(child)
                kinds["worker" if child.ppid() == parent.pid else "engine"].append(child)
    return below, kinds


@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize("victim", ["parent", "worker", "engine"])
def test_what_is_killed_changes_nothing(whole: Path, begun: Path, victim: str) -> None:
    """SIGKILL when the first shard is there, then again, to the end: bytes as of the undisturbed run."""
    with started(begun) as running:
        wait_for_shards(running, begun, 1)
        below, chosen = family(running)
        # Between two of its jobs an engine may be about to be started.
        for _ in _until(PATIENCE):
            if chosen[victim]:
                break
            below, chosen = family(running)
        chosen[victim][0].kill()
        running.wait(timeout=PATIENCE)
        _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive, "no process outlives the run"
    made = set((begun / "shards").glob("*.npz"))
    if victim == "parent":
        assert running.returncode == -signal.SIGKILL
        assert made
        assert not (begun / "library").exists()
        with started(begun) as again:
            assert again.wait(timeout=PATIENCE) == 0
    else:
        assert running.returncode == 0
    assert bulk.contents(begun / "library") == bulk.contents(whole / "library")
    assert shards(begun) == shards(whole)


def test_a_torn_shard_is_made_anew_and_others_stay(whole: Path, begun: Path) -> None:
    (begun / "shards").mkdir()
    paths = sorted((whole / "shards").glob("*.npz"))
    for number, path in enumerate(paths):
        data = path.read_bytes()
        # Cut short; one bit changed in the middle; under another's name; whole.
        kept = (data[: len(data) // 2], flipped(data), paths[0].read_bytes())[number] if number < 3 else data
        (begun / "shards" / path.name).write_bytes(kept)
    (begun / "shards" / ".0123.npz.half").write_bytes(b"begun")
    with LocalWorkers(2) as workers:
        figures = bulk.run(begun, workers, shard_patches=SHARD)
    assert (figures.shards, figures.found) == (5, 2)
    assert bulk.contents(begun / "library") == bulk.contents(whole / "library")
    assert shards(begun) == shards(whole)
    assert sorted(path.name for path in (begun / "shards").iterdir()) == sorted([".lock", *shards(whole)])


def test_the_key_is_of_everything_that_counts(whole: Path) -> None:
    recipe, patches = bulk.recipe_of(whole), read_user_banks(whole / "banks").patches
    keys = {
        recipe.key(patches),
        recipe.key(patches[1:]),
        recipe.key((replace(patches[0], family="organ"), *patches[1:])),
        *(replace(recipe, **change).key(patches) for change in (
            {"pitches": PITCHES[:-1]}, {"velocity": 99}, {"pitched_share": 0.5}, {"preview_pitch": 48},
            {"preview_seconds": 1.0}, {"patch_seconds": 1.0},
            {"models": tuple(replace(model, sha256="0" * 64) for model in recipe.models)},
        )),
    }  # fmt: skip
    assert len(keys) == 10
    elsewhere = replace(
        recipe,
        fonts=Path("/elsewhere"),
        models=tuple(replace(m, path=Path("/elsewhere") / m.path.name) for m in recipe.models),
    )
    assert elsewhere.key(patches) == recipe.key(patches)


def test_a_patch_that_takes_too_long_or_fails_is_dropped(whole: Path, tmp_path: Path) -> None:
    patches = read_user_banks(whole / "banks").patches[:2]
    torn = replace(patches[1], payload="AAAA")
    slow = bulk.recipe_of(whole, patch_seconds=0.001)
    for recipe, reasons in ((slow, ["timed_out"]), (bulk.recipe_of(whole), ["failed"])):
        given = (patches[0],) if recipe is slow else (patches[0], torn)
        task = ShardTask(number=1, patches=given, recipe=recipe, key=recipe.key(given), folder=tmp_path)
        made = make_shard(task)
        shard = shard_files.read(shard_files.path_of(tmp_path, task.key), task.key)
        assert shard is not None
        assert [drop.reason for drop in shard.drops] == reasons
        assert (made.patches, made.dropped) == (len(shard.patches), 1)
        assert len(shard.patches) == len(given) - 1


def test_what_cannot_be_done_is_said(whole: Path, begun: Path) -> None:
    with LocalWorkers(1) as workers:
        wrong = bulk.recipe_of(begun)
        wrong = replace(wrong, models=(replace(wrong.models[0], sha256="0" * 64), *wrong.models[1:]))
        with pytest.raises(BundleError, match="give every machine the same bundle"):
            bulk.run(begun, workers, shard_patches=SHARD, recipe=wrong)
        assert not list((begun / "shards").glob("*.npz"))
        with (begun / "shards" / ".lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(Unavailable, match="another run works in"):
                bulk.run(begun, workers, shard_patches=SHARD)
        (begun / "banks").unlink()
        with pytest.raises(DataError, match="there is no patch to render"):
            bulk.run(begun, workers, shard_patches=SHARD, recipe=bulk.recipe_of(whole))


class started:
    """A run in a process of its own; whatever is left of it at the end is ended."""

    def __init__(self, folder: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.bulk", str(folder), str(SHARD), "2"],
            env=environment,
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


def wait_for_shards(running: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    for _ in _until(PATIENCE):
        if len(list((folder / "shards").glob("*.npz"))) >= count:
            return
        assert running.poll() is None, "the run ended before it could be disturbed"
    raise AssertionError("no shard came")


def _until(seconds: float) -> Iterator[None]:
    for _ in range(round(seconds / 0.02)):
        yield
        # The condition is asked for often; the wait only spares the processor.
        subprocess.run(["sleep", "0.02"], check=True)


def is_spawned(process: psutil.Process) -> bool:
    """Not the tracker of shared resources, which multiprocessing starts beside the workers."""
    return any("spawn_main" in part for part in process.cmdline())


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").glob("*.npz"))}
