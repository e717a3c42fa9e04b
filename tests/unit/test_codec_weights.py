"""The shipped weights: whole, described, made by the settings beside them, and as good as is promised; and their way
into the default pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from timbrel.codec.in_process import TorchModels
from timbrel.codec.network import CodecConfig, MagnitudeCodec
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.codec.storage import describe, load_codec, save_codec
from timbrel.errors import ConfigurationError, DataError
from timbrel.evaluation.codec_engines import measure, shortcomings
from timbrel.files import sha256_of
from timbrel.notes.noteset import Note, NoteSetWriter
from timbrel.params import Params, load
from timbrel.pitch.estimate import estimate
from timbrel.stages import apart, codec_pipeline
from timbrel.stages import codec as codec_stage

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights" / "codec"
NOTES = ROOT / "tests" / "golden" / "unseen_engines"


class Recorder:
    """What a stage tells, kept."""

    checkpoint: Path | None = None

    def __init__(self) -> None:
        self.final: dict[str, float] = {}
        self.steps: list[int] = []
        self.datasets: list[str] = []

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.final |= values
        self.steps += [] if step is None else [step]

    def dataset(self, name: str, path: Path) -> None:
        self.datasets.append(name)

    def figure(self, name: str, figure: object) -> None:
        pass


def test_the_weights_are_whole_and_say_where_they_are_from() -> None:
    description = describe(WEIGHTS)
    assert description["sha256"] == sha256_of(WEIGHTS / "codec.safetensors")
    assert (WEIGHTS / "codec.safetensors").stat().st_size <= 16 * 2**20
    record = description["record"]
    assert record["source"].startswith("trained by pipelines/codec of this repository")
    assert record["licence"] == "CC0-1.0"
    assert load(ROOT / "params.yaml").codec.weights == "weights/codec"


def test_the_weights_were_made_by_the_settings_beside_them() -> None:
    settings = yaml.safe_load((ROOT / "pipelines/codec/params.yaml").read_text())
    recipe = describe(WEIGHTS)["record"]["recipe"]
    assert recipe["pipeline"] == "pipelines/codec/dvc.yaml"
    assert (ROOT / recipe["pipeline"]).is_file()
    assert {name: recipe[name] for name in settings} == settings


def test_pitch_and_spectrum_of_engines_never_trained_on() -> None:
    codec = MagnitudeCodecRuntime(TorchModels(load_codec(WEIGHTS)))
    notes: dict[str, list[np.ndarray]] = {}
    for path in sorted(NOTES.glob("*.flac")):
        audio, rate = soundfile.read(path, dtype="float32")
        assert rate == 24_000
        notes.setdefault(path.name.split("-")[0], []).append(audio)
    assert {engine: len(sounds) for engine, sounds in notes.items()} == {
        "amsynth": 8,
        "vital": 8,
        "whysynth": 8,
    }
    figures = measure(codec, notes, lambda sound: estimate(sound, 24_000).midi)
    assert figures["voiced"] == 24
    assert shortcomings(figures) == []


def small_checkout(root: Path) -> Params:
    """Two instruments of two notes, one held out; a codec of 8 hidden units in weights/."""
    time = np.arange(96_000) / 24_000
    with NoteSetWriter(root / "data" / "notes") as writer:
        for name, split, hertz in (("organ_dx7_000", "train", 220.0), ("organ_dx7_001", "test", 330.0)):
            for pitch in (57, 69):
                note = Note(
                    row=0, note_id=f"{name}-{pitch}", instrument=name, name="", family="organ", source="dx7",
                    pitch=pitch, velocity=100, split=split, f0_midi=float(pitch), f0_confidence=1.0,
                )  # fmt: skip
                writer.add(note, np.sin(2 * np.pi * hertz * (pitch / 57) * time).astype(np.float32))
    save_codec(MagnitudeCodec(CodecConfig(hidden=8)), root / "weights", {"source": "a test"})
    params = load(ROOT / "params/smoke.yaml")
    return params.model_copy(update={"codec": params.codec.model_copy(update={"weights": "weights"})})


def test_the_stage_takes_the_weights_and_does_not_train(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    params = small_checkout(tmp_path)
    (tmp_path / "data" / "codec").mkdir()
    record = Recorder()
    codec_stage.run(params, tmp_path, record)  # type: ignore[arg-type]
    made = tmp_path / "data" / "codec"
    assert sha256_of(made / "codec.safetensors") == sha256_of(tmp_path / "weights" / "codec.safetensors")
    kept = describe(made)["record"]
    assert (kept["weights"], kept["source"]) == ("weights", "a test")
    assert record.steps == [0]
    assert "loss" not in record.final
    assert record.final["heldout_notes_notes"] == 2.0
    assert record.datasets == ["notes", "weights"]


def test_the_stage_refuses_weights_of_another_sum(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    params = small_checkout(tmp_path)
    path = tmp_path / "weights" / "codec.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not the file that codec\.json names"):
        codec_stage.run(params, tmp_path, Recorder())  # type: ignore[arg-type]
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(DataError, match="is missing"):
        codec_stage.run(params, tmp_path, Recorder())  # type: ignore[arg-type]


def test_shipping_copies_both_files_and_holds_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, shipped = tmp_path / "data" / "codec_weights", tmp_path / "weights" / "codec"
    trained.mkdir(parents=True)
    save_codec(MagnitudeCodec(CodecConfig(hidden=8)), trained, {})
    codec_pipeline.ship(tmp_path)
    assert json.loads((shipped / "codec.json").read_text())["sha256"] == sha256_of(
        shipped / "codec.safetensors"
    )
    monkeypatch.setattr(apart, "LIMIT_BYTES", 1_000)
    with pytest.raises(DataError, match="over 1000: train with a smaller hidden"):
        codec_pipeline.ship(tmp_path)


def test_settings_of_the_codecs_pipeline_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    values = yaml.safe_load((ROOT / "pipelines/codec/params.yaml").read_text())
    path.write_text(yaml.safe_dump(values))
    assert apart.read_settings(path, codec_pipeline.Settings).training.rounds[1].tones_weight == 2
    values["training"]["rounds"][1]["steps"] = 0
    del values["corpus"]["tones"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigurationError, match=r"(?s)corpus\.tones.*training\.rounds\.1\.steps"):
        apart.read_settings(path, codec_pipeline.Settings)
