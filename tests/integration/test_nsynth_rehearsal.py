"""params/nsynth.yaml in miniature: 300 synthetic instruments in NSynth's layout, every kind of stage for real.

Codec and search are published networks' files with random weights. Map and generator are trained as on a GPU host, by
two processes in bfloat16; here they are two processes on the CPU. Stage pgesam, which listens to a thousand notes, is
left to the smoke profile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from support.encodec import write_tiny_folder
from support.nsynth_layout import write_part
from support.published import write_random_efficientat
from support.stage_record import Notes

from timbrel.audio import Audio
from timbrel.cli import main
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.library.bundle import Bundle
from timbrel.notes.families import FAMILIES
from timbrel.notes.noteset import NoteSet
from timbrel.params import Params, load, with_overlays
from timbrel.stages import (
    bundle,
    codec,
    embeddings,
    encoder,
    evaluate,
    export,
    index,
    library,
    notes,
    patches,
)

ROOT = Path(__file__).parents[2]


def write_nsynth(folder: Path) -> None:
    """240 instruments to learn from, and 60 held out that valid and test share, as published.

    Some of each have five pitches, as few as the map takes; the others have one, and must not be chosen.
    """
    for group, count, parts in (
        (1, 240, {"train": range(58, 63)}),
        (2, 60, {"valid": range(58, 61), "test": range(61, 63)}),
    ):
        names = [f"{FAMILIES[i % len(FAMILIES)]}_synthetic_{group}{i:02d}" for i in range(count)]
        for part, pitches in parts.items():
            whole = dict.fromkeys(names[: 3 * len(FAMILIES)], pitches)
            write_part(
                folder, part, whole | dict.fromkeys(names[3 * len(FAMILIES) :], pitches[:1]), drawn=True
            )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_folder(folder / "encodec_24khz", codebooks=32)
    file = folder / "encodec_24khz" / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if name.startswith("decoder.layers.15.conv.") and not name.endswith("original1"):
            tensors[name] *= 0.005  # decoded sound stays within full scale
    save_file(tensors, file)
    write_random_efficientat(folder / "mn05_as_mAP_000.pt", "mn05")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    profile = with_overlays(ROOT / "params/nsynth.yaml", ROOT / "params/overlays/rehearsal.yaml")
    (folder / "params.yaml").write_text(profile)
    (folder / "banks").mkdir()
    return folder


@pytest.fixture(scope="module")
def params(root: Path) -> Params:
    return load(root / "params.yaml")


def command(root: Path, weights: Path, stage: str) -> subprocess.CompletedProcess[str]:
    """``python -m timbrel.stages``, as dvc.yaml has it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "TIMBREL_WEIGHTS": str(weights),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "timbrel.stages", stage],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def built(root: Path, params: Params, weights: Path) -> Path:
    assert params.notes.nsynth is not None
    write_nsynth(root / params.notes.nsynth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIMBREL_WEIGHTS", str(weights))
        for stage in (notes, patches, codec, embeddings, encoder):
            stage.run(params, root, Notes(root / "build" / stage.__name__))  # type: ignore[arg-type]
        for name in ("vae", "generator"):
            done = command(root, weights, name)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
            assert done.stdout.count(f"[{name}] done in") == 1, "the leader alone is the stage"
        for stage in (export, library, index, bundle, evaluate):
            stage.run(params, root, Notes(root / "build" / stage.__name__))  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def engine(built: Path) -> Iterator[Engine]:
    opened = Bundle.open(built / "bundle")
    engine = Engine(opened, OnnxModels({name: opened.path(name) for name in opened.manifest.models}))
    yield engine
    engine.close()


def test_what_is_missing_is_told_at_once_and_before_any_work(root: Path, tmp_path: Path) -> None:
    done = command(root, tmp_path, "notes")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "notes: 2 problem(s), nothing was run",
        "  codec.kind: EnCodec's weights are missing: `timbrel weights fetch encodec-24khz`",
        f"  encoder: efficientat-mn05 needs mn05_as_mAP_*.pt in {tmp_path}: lay the published file there",
    ]
    assert not (root / "data/notes").exists()


@pytest.mark.timeout(600)
def test_the_profile_is_whole(built: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(weights))
    done = CliRunner().invoke(main, ["pipeline", "check", str(built / "params.yaml"), "--root", str(built)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"{built / 'params.yaml'}: nothing is missing"


def test_instruments_are_capped_and_split_as_nsynth_asks(built: Path) -> None:
    found = NoteSet.open(built / "data/notes")
    splits = {(note.instrument, note.split) for note in found}
    assert len(splits) == len(found.instruments)
    train = [name for name, split in splits if split == "train"]
    assert len(train) == 2 * len(FAMILIES)
    assert {split for _, split in splits} == {"train", "validation", "test"}


def test_two_processes_left_whole_weights_and_one_run_each(built: Path) -> None:
    for name in ("vae", "generator"):
        report = json.loads((built / f"reports/stages/{name}.json").read_text())
        assert np.isfinite(list(report["metrics"].values())).all()
        tensors = load_file(built / "data" / name / f"{name}.safetensors")
        assert all(
            tensor.dtype == torch.float32 or not tensor.is_floating_point() for tensor in tensors.values()
        )
    assert not list((built / "build/checkpoints").glob("*"))


def test_the_bundle_says_which_published_networks_it_holds(engine: Engine) -> None:
    models = engine.bundle.manifest.models
    assert "EfficientAT mn05" in models["timbre_encoder"].source
    assert models["timbre_encoder"].licence == "MIT"
    assert "EnCodec" in models["codec_decoder"].source
    assert models["codec_decoder"].licence == "CC-BY-NC-4.0"


def test_it_finds_its_patches_and_plays_its_map(built: Path, engine: Engine) -> None:
    rendered = NoteSet.open(built / "data/patches")
    note = next(note for note in rendered.notes if note.split == "library" and abs(note.f0_midi - 60) < 0.5)
    result = engine.search(Audio(rendered.float_audio([note.row])[0], 24_000), k=3)
    assert result.hits[0].patch_id == note.instrument
    assert result.hits[0].stage1_distance == pytest.approx(0, abs=0.02)
    audio = engine.synthesize(x=0.1, y=0.1, pitch=60, seconds=0.5)
    assert np.isfinite(audio.samples).all()
    assert np.abs(audio.samples).max() > 0.01


@pytest.mark.timeout(300)
def test_what_a_full_run_would_take_is_extrapolated_from_timed_steps(root: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks/rehearsal.py",
            root / "params.yaml",
            "--steps",
            "3",
            "--instruments",
            "12",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, last = done.stdout.splitlines()
    found = json.loads("\n".join(lines))
    assert found["extrapolated"] is True
    assert (found["precision"], found["steps_timed"], found["vae"]["steps"]) == ("bf16", 3, 20)
    for name in ("vae", "generator"):
        each = found[name]
        assert each["hours"] == pytest.approx(each["seconds_per_step"] * each["steps"] / 3600)
    assert "extrapolated from 3 steps each" in last
