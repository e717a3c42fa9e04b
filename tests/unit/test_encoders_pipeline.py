"""pipelines/encoder: its settings, what it ships, and that the weights in Git are its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from timbrel.encoders import storage
from timbrel.encoders.efficientat import Features
from timbrel.encoders.examples import Example
from timbrel.encoders.frontend import clip
from timbrel.encoders.style_network import WIDTH, StyleNetwork
from timbrel.encoders.timbre import Shape, build
from timbrel.encoders.within_class import whitening
from timbrel.errors import ConfigurationError, DataError
from timbrel.notes.noteset import Note
from timbrel.notes.shaping import draw_shape
from timbrel.stages import encoder_pipeline
from timbrel.stages.apart import read_settings
from timbrel.stages.encoder_settings import Readout, Settings, Taken

ROOT = Path(__file__).parents[2]


def test_the_weights_in_git_were_made_with_the_settings_in_git() -> None:
    folder = ROOT / "weights/encoder"
    settings = read_settings(ROOT / encoder_pipeline.SETTINGS, Settings)
    for described in (storage.describe(folder), storage.describe_style(folder)):
        assert described["origin"]["recipe"] == settings.model_dump(mode="json")
        assert described["origin"]["licence"] == "CC0-1.0"
    encoder = storage.load(folder)
    assert encoder.style is not None
    assert encoder.style.size == settings.readout.size
    assert encoder.network.shape.channels == settings.training.channels


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / encoder_pipeline.SETTINGS).read_text())
    settings["training"]["steps"] = 0
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigurationError, match=r"training\.steps"):
        read_settings(path, Settings)


def test_presets_keep_their_name_in_every_source_and_voices_do_not() -> None:
    note = Note(
        row=0, note_id="n", instrument="i", name="i", family="bass", source="soundfont", pitch=60, velocity=100,
        split="train", f0_midi=60.0, f0_confidence=1.0,
    )  # fmt: skip
    assert encoder_pipeline._instrument(note, "wide") == "i"
    voice = Note(**{**{name: getattr(note, name) for name in Note.__slots__}, "source": "dx7"})
    assert encoder_pipeline._instrument(voice, "wide") == "wide:i"


def test_recordings_are_one_note_each_and_what_is_no_sound_is_left_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(9_600) / 7.0), 24_000)
    (tmp_path / "b.wav").write_text("nothing")
    taken = Taken(notes=1, resampled=1, reshaped=0)
    audio, examples = encoder_pipeline._recordings([tmp_path / "a.wav", tmp_path / "b.wav"], taken, seed=1)
    assert [each.instrument for each in examples] == ["recording:0", "recording:0+resampled"]
    assert all(each.pitch < 0.0 for each in examples)
    np.testing.assert_allclose(audio(0)[:9_600], 0.3 * np.sin(np.arange(9_600) / 7.0), atol=1e-3)


class Listening:
    """What a stage tells its record."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def dataset(self, name: str, folder: Path) -> None:
        assert folder.is_dir()

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self.told |= values


def test_the_readout_takes_blocks_as_they_were_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(ROOT / encoder_pipeline.SETTINGS, Settings)
    settings = settings.model_copy(update={"readout": Readout(seed=1, size=6)})
    torch.manual_seed(3)
    features = Features(WIDTH).eval()
    (tmp_path / encoder_pipeline.STYLE).mkdir(parents=True)
    storage.save_features(features, tmp_path / encoder_pipeline.STYLE, {"style_unexplained": 0.25})
    rng = np.random.default_rng(0)
    time = np.arange(48_000) / 24_000
    sounds = [
        0.3 * rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * hertz * time) * np.exp(-time * rng.uniform(0.0, 4.0))
        + 0.01 * rng.standard_normal(len(time))
        for hertz in np.geomspace(100.0, 2_000.0, 24)
    ]
    heard = [Example(row, f"i{row // 4}", 60.0) for row in range(24)]
    # The same sounds, of which nobody knows whose they are, say nothing of how an instrument changes.
    strange = [Example(row, "recording", 60.0) for row in range(24)]

    def audio(row: int) -> np.ndarray:
        return sounds[row].astype(np.float32)

    sources = {"notes": (audio, heard), "recordings": (audio, strange)}
    monkeypatch.setattr(encoder_pipeline, "_sources", lambda *given: sources)
    record = Listening()
    encoder_pipeline.readout(settings, tmp_path, record)  # type: ignore[arg-type]
    network = storage.load_style(tmp_path / encoder_pipeline.READOUT)
    assert network.size == 6
    for name, value in features.state_dict().items():
        assert torch.equal(network.features.state_dict()[name], value), name
    assert record.told["style_unexplained"] == 0.25
    assert 0.3 < record.told["variance_kept"] < 1.0
    with torch.inference_mode():
        clips = np.stack([clip(sound.astype(np.float32)) for sound in sounds])
        styles = network(torch.from_numpy(clips))
    np.testing.assert_allclose(styles.mean(dim=0), 0.0, atol=2e-3)
    expected = whitening(styles.numpy(), np.arange(24) // 4)
    np.testing.assert_allclose(network.whitening, expected, atol=5e-3)
    assert float(styles.square().sum(dim=1).mean()) == pytest.approx(1.0, rel=2e-2)


def test_only_notes_as_they_were_played_show_how_an_instrument_changes() -> None:
    plain, faster = Example(0, "i", 60.0), Example(0, "i+resampled", 62.0, semitones=2.0)
    reshaped = Example(0, "i+reshaped", 60.0, shape=draw_shape(np.random.default_rng(0)))
    sources = dict.fromkeys(("notes", "patches", "wide"), (np.zeros, [plain, faster, reshaped]))
    assert encoder_pipeline._as_played(sources) == dict.fromkeys(("notes", "patches"), (np.zeros, [plain]))


def test_only_whole_weights_are_shipped(tmp_path: Path) -> None:
    trained = tmp_path / encoder_pipeline.TRAINED
    trained.mkdir(parents=True)
    network = build(Shape(channels=(4, 4, 8, 8), embedding_size=8)).eval()
    storage.save(network, trained, {}, {"licence": "CC0-1.0"})
    style = tmp_path / encoder_pipeline.READOUT
    style.mkdir()
    storage.save_style(StyleNetwork(6).eval(), style, {}, {"licence": "CC0-1.0"})
    encoder_pipeline.ship(tmp_path)
    shipped = tmp_path / encoder_pipeline.SHIPPED
    assert storage.describe(shipped) == storage.describe(trained)
    assert storage.describe_style(shipped) == storage.describe_style(style)
    before = (shipped / storage.WEIGHTS).read_bytes()
    shutil.copyfile(trained / storage.SIDECAR, trained / storage.WEIGHTS)
    with pytest.raises(DataError, match="not the file that"):
        encoder_pipeline.ship(tmp_path)
    assert (shipped / storage.WEIGHTS).read_bytes() == before
