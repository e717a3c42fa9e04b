"""The recall measurement: ranks by hand, and a small library of voices rendered by the real engine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import bundle_parts
from support.tiny_models import write_tiny_models

from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import DataError
from timbrel.evaluation.conditions import CONDITIONS, ConditionSettings
from timbrel.evaluation.conditions import measure as measure_conditions
from timbrel.evaluation.patch_recall import RecallSettings, measure
from timbrel.evaluation.queries import Plan, plan, play, replay_library, stored_library
from timbrel.evaluation.report import protocol_part, rounded, share, update_report, write_report
from timbrel.evaluation.stage_worth import compare, rank_of, summary
from timbrel.files import sha256_of
from timbrel.library.build import build_index, build_library
from timbrel.library.bundle import Bundle
from timbrel.library.tables import Patch
from timbrel.notes.dx7 import to_packed
from timbrel.notes.fm_banks import generate
from timbrel.notes.noteset import Note, NoteSetWriter
from timbrel.notes.patches import dx7_patch, write_patches
from timbrel.notes.render import RenderJob, render_job

KEYS = (48, 60, 72)
VOICES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the tiny models, over voices of our own generator rendered by the DX7 engine."""
    root = tmp_path_factory.mktemp("recall")
    parts = root / "bundle.parts"
    patches = []
    with NoteSetWriter(parts / "patches") as writer:
        for made in generate(VOICES, seed=5):
            packed = to_packed(made.voice)
            patch = dx7_patch(packed, bank="test.syx", family=made.family, split="library")
            rendered = render_job(
                RenderJob(key=patch.patch_id, notes=tuple((k, 100) for k in KEYS), voice=packed)
            )
            if any(each.audio is None for each in rendered):
                continue
            patches.append(replace(patch, offset_semitones=0.0))
            for each in rendered:
                assert each.audio is not None
                writer.add(
                    Note(
                        row=0,
                        note_id=f"{patch.patch_id}-{each.pitch:03d}-100",
                        instrument=patch.patch_id,
                        name=patch.name,
                        family=patch.family,
                        source="dx7",
                        pitch=each.pitch,
                        velocity=100,
                        split="library",
                        f0_midi=each.f0_midi,
                        f0_confidence=each.f0_confidence,
                    ),
                    each.audio.astype(np.float32) / 32768.0,
                )
        write_patches(writer.path("patches.csv"), patches)
    paths = write_tiny_models(parts / "models")
    models = OnnxModels(paths)
    build_library(
        parts / "patches", parts / "library", models.run, MagnitudeCodecRuntime(models),
        encoder=sha256_of(paths["timbre_encoder"]), preview_seconds=0.5, preview_pitch=60,
    )  # fmt: skip
    build_index(parts / "library").save(parts / "index")
    Bundle.build(root / "bundle", **bundle_parts(parts)).close()
    return root / "bundle"


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    bundle = Bundle.open(folder)
    opened = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    yield opened
    opened.close()


def test_rank_counts_each_patch_once_and_ties_against_it() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    distances = np.array([0.5, 0.3, 0.1, 0.2, 0.3])
    assert rank_of(1, labels, distances) == 1
    assert rank_of(0, labels, distances) == 3  # behind 1, and level with 2
    assert rank_of(2, labels, distances) == 3
    assert rank_of(7, labels, distances) == 0


def test_plans_differ_from_the_library_in_velocity(engine: Engine) -> None:
    bundle = engine.bundle
    plans = plan(bundle.patches, bundle.renders, count=100, velocities=range(98, 103), seed=1)
    assert len(plans) == len({p.patch.patch_id for p in plans}) == len(bundle.patches)
    assert {p.key for p in plans} <= set(KEYS)
    assert 100 not in {p.velocity for p in plans}
    assert {p.velocity for p in plans} <= {98, 99, 101, 102}
    others = plan(
        bundle.patches, bundle.renders, count=5, velocities=range(60, 61), keys=range(48, 73), seed=1
    )
    assert len(others) == 5
    assert not {p.key for p in others} & set(KEYS)
    assert plans == plan(bundle.patches, bundle.renders, count=100, velocities=range(98, 103), seed=1)


def test_a_query_is_the_patch_with_noise_at_the_level_asked_for(engine: Engine, tmp_path: Path) -> None:
    patch = engine.bundle.patches[0]
    plans = [Plan(patch=patch, key=60, velocity=80)]
    (noisy,), mute = play(plans, noise_db=20.0, banks=tmp_path, seed=1)
    (clean,), _ = play(plans, noise_db=300.0, banks=tmp_path, seed=1)
    noise = noisy.audio.samples - clean.audio.samples
    ratio = 10 * math.log10(np.mean(clean.audio.samples**2) / np.mean(noise**2))
    assert mute == []
    assert ratio == pytest.approx(20.0, abs=0.2)
    assert noisy.audio.sample_rate == 24_000


def test_the_library_renders_again_to_the_same_samples(engine: Engine, folder: Path, tmp_path: Path) -> None:
    bundle = engine.bundle
    stored = dict(stored_library(folder.with_name("bundle.parts") / "patches", bundle.renders))
    again = dict(replay_library(bundle.patches, bundle.renders, banks=tmp_path))
    assert sorted(again) == sorted(stored) == list(range(len(bundle.renders)))
    # Stored notes went through float and back: one step of 16 bits, at most.
    for row, note in stored.items():
        assert np.abs(note.astype(int) - again[row].astype(int)).max() <= 1


def test_a_folder_of_other_notes_is_refused(engine: Engine, folder: Path) -> None:
    with pytest.raises(DataError, match="other notes than the bundle"):
        stored_library(folder.with_name("bundle.parts") / "patches", engine.bundle.renders[:-1])


def test_a_missing_soundfont_is_named(tmp_path: Path) -> None:
    import base64

    preset = {"soundfont": "mine.sf2", "sha256": "0" * 64, "bank": 0, "program": 1}
    patch = Patch(
        patch_id="sf2-000000000000", name="Mine", bank="mine.sf2", family="organ", engine="soundfont",
        offset_semitones=0.0, x=0.0, y=0.0, sha256="0" * 64,
        payload=base64.b64encode(json.dumps(preset).encode()).decode(),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"mine\.sf2"):
        play([Plan(patch=patch, key=60, velocity=80)], noise_db=30.0, banks=tmp_path, seed=1)


def test_the_report(engine: Engine, folder: Path, tmp_path: Path) -> None:
    settings = RecallSettings(patches=8, noise_db=40.0, min_velocity=90, max_velocity=110, seed=2)
    stored = list(stored_library(folder.with_name("bundle.parts") / "patches", engine.bundle.renders))
    report = measure(engine, settings, banks=tmp_path, library=stored)
    assert report["bundle"] == engine.bundle.id
    assert report["library"]["patches"] == len(engine.bundle.patches)
    for condition in report["conditions"].values():
        assert condition["queries"] == 8
        assert sum(condition["gate"].values()) + condition["queries_without_sound"] == 8
        assert set(condition["recall"]) == {
            "search", "search, gate off", "stage1 alone", "stage2 alone", "mfcc alone", "mel alone",
            "stage1 alone, gate off", "stage2 alone, gate off", "mfcc alone, gate off", "mel alone, gate off",
        }  # fmt: skip
        for figures in condition["recall"].values():
            assert 0.0 <= figures["top1"] <= figures["top10"] <= 1.0
        found = sum(f["queries"] * f["share"] for f in condition["top10_by_family"].values())
        assert found == pytest.approx(8 * condition["recall"]["search"]["top10"])
    with pytest.raises(DataError, match="build the library again"):
        measure(engine, settings, banks=tmp_path, library=stored[1:])
    # The same key a little softer or louder, hardly any noise: plain spectra find it among a dozen.
    assert report["conditions"]["library_keys"]["recall"]["mel alone"]["top1"] >= 0.75
    assert report == measure(engine, settings, banks=tmp_path, library=stored)


def test_conditions_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(48_000) / 24_000
    note = (0.3 * np.exp(-time) * sum(np.sin(2 * np.pi * 220 * n * time) / n for n in range(1, 9))).astype(
        np.float32
    )
    heard = {name: disturbed(note, rng) for name, disturbed in CONDITIONS.items()}
    assert heard["velocity"] is note
    noise = heard["noise"] - note
    assert 10 * np.log10(np.mean(note**2) / np.mean(noise**2)) == pytest.approx(30.0, abs=0.3)
    assert abs(20 * np.log10(np.abs(heard["level"]).max() / np.abs(note).max())) == pytest.approx(6.0)
    silence = len(heard["lead_in"]) - len(note)
    assert 0 < silence <= 36_000
    assert not heard["lead_in"][:silence].any()
    assert np.array_equal(heard["lead_in"][silence:], note)
    assert len(heard["lossy"]) == len(note)
    assert 0.98 < np.corrcoef(heard["lossy"], note)[0, 1] < 0.99999
    assert 0.8 < np.corrcoef(heard["room"], note)[0, 1] < 0.999


def test_recall_under_conditions(engine: Engine, folder: Path, tmp_path: Path) -> None:
    settings = ConditionSettings(patches=6, min_velocity=90, max_velocity=110, seed=3)
    stored = list(stored_library(folder.with_name("bundle.parts") / "patches", engine.bundle.renders))
    ours, beside = measure_conditions(engine, settings, banks=tmp_path, library=stored)
    assert set(beside) == {"mfcc", "mel"}
    for figures in (ours, ours["stage1"], ours["stage2"], *beside.values()):
        assert list(figures["by_condition"]) == list(CONDITIONS)
        # Undisturbed notes are not a condition.
        each = [found["recall10"] for name, found in figures["by_condition"].items() if name != "undisturbed"]
        assert figures["recall10"] == pytest.approx(np.mean(each))
    # Neither level nor a wait before the note is heard: the clip is the library's own, and nothing is nearer.
    for name in ("undisturbed", "level", "lead_in"):
        assert beside["mel"]["by_condition"][name] == {"recall1": 1.0, "recall10": 1.0}
    for worth in (ours["stages"]["gated"], ours["stages"]["all_pitches"]):
        # 12 patches of 3 renders: all are candidates.
        assert worth["two_stage"]["50"] == worth["exhaustive"] | {"overlap10": 1.0}
    assert ours["stages"]["gated"]["exhaustive"]["recall10"] == ours["recall10"]
    assert (ours, beside) == measure_conditions(engine, settings, banks=tmp_path, library=stored)


def test_stages_by_hand() -> None:
    """Five entries of four labels; label 0 is wanted, and stage 1 has its better entry last."""
    labels = np.array([0, 0, 1, 2, 3])
    stage1 = np.array([0.3, 0.9, 0.1, 0.2, 0.4])
    stage2 = np.array([0.5, 0.2, 0.3, 0.6, 0.1])
    found = compare(stage1, stage2, labels, 0, counts=(2, 3, 4, 5))
    assert (found.stage1, found.exhaustive, found.unscaled) == (3, 2, 2)
    # Two candidates: labels 1 and 2. Three: 0's worse entry, behind 1. Four: behind 1 and 3. All: behind 3.
    assert found.two_stage == {2: 0, 3: 2, 4: 3, 5: 2}
    assert found.overlap == {2: 0.5, 3: 0.75, 4: 1.0, 5: 1.0}
    scaled = compare(stage1, stage2, labels, 0, scales=np.array([1.0, 4.0, 1.0, 1.0, 1.0]), counts=(5,))
    assert (scaled.stage1, scaled.exhaustive, scaled.unscaled) == (3, 1, 2)
    # The products are .15, .18, .03, .12, .04, so 0 is the last of those that are kept.
    both = compare(stage1, stage2, labels, 0, stage1_share=0.5, counts=(3, 5))
    assert (both.stage1, both.stage2, both.exhaustive, both.two_stage) == (3, 2, 4, {3: 3, 5: 4})
    found = compare(stage1, stage2, labels, 0, counts=(5,))
    whole = summary([found, scaled], {"top1": 1, "top2": 2}, total=4)
    assert whole["stage1"] == {"top1": 0.0, "top2": 0.0}
    assert whole["exhaustive"] == {"top1": 0.25, "top2": 0.5}
    assert whole["exhaustive, unscaled"] == {"top1": 0.0, "top2": 0.5}
    assert whole["two_stage"] == {"5": {"top1": 0.25, "top2": 0.5, "overlap10": 1.0}}


def test_reports_are_rounded_and_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", {"a": 1 / 3, "b": [math.nan, 2], "c": {"d": "e"}})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 0.3333, "b": [None, 2], "c": {"d": "e"}}
    with pytest.raises(TypeError):
        write_report(tmp_path / "s.json", {"a": object()})
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]


def test_protocols_share_a_report(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_report(path, {"ratings": {"mae": 0.2}})
    update_report(path, protocol_part("sweeps", {"spearman": 0.9}, {"mel": {"spearman": 0.8}}))
    first = protocol_part("instruments", {"top1": 0.7}, {"mel": {"top1": 0.6}, "mfcc": {"top1": 0.5}})
    assert first["baselines"]["mfcc"]["instruments"] == {"top1": 0.5}
    update_report(path, first)
    # Measured again without mfcc: its former figure goes, those of other protocols stay.
    update_report(path, protocol_part("instruments", {"top1": 0.75}, {"mel": {"top1": 0.65}}))
    assert json.loads(path.read_text()) == {
        "ratings": {"mae": 0.2},
        "sweeps": {"spearman": 0.9},
        "baselines": {"mel": {"sweeps": {"spearman": 0.8}, "instruments": {"top1": 0.65}}},
        "instruments": {"top1": 0.75},
    }


def test_shares() -> None:
    assert share(1, 4) == 0.25
    assert math.isnan(share(0, 0))
    assert rounded({1: (0.00004,)}) == {"1": [0.0]}
