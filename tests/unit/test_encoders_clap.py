"""CLAP: the numbers of LAION's own package with random weights, sounds and words; one crop; checkpoints; export."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.clap import package_model, write_checkpoint, write_vocabulary

from timbrel.encoders import clap, clap_text
from timbrel.encoders.clap_input import SAMPLES, ten_seconds
from timbrel.encoders.graph import tones
from timbrel.encoders.interface import Style
from timbrel.encoders.registry import NETWORKS, open_encoder
from timbrel.encoders.style import statistics
from timbrel.errors import DataError

NAME = "clap-630k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clap")
    write_vocabulary(made)
    return made


@pytest.fixture(scope="module")
def package(folder: Path) -> Any:
    return package_model(folder, "HTSAT-tiny", seed=0)


@pytest.fixture(scope="module")
def checkpoint(folder: Path, package: Any) -> Path:
    return write_checkpoint(package, folder / "630k-audioset-best.pt")


@pytest.fixture(scope="module")
def tower(checkpoint: Path) -> clap.AudioTower:
    return clap.read_published(checkpoint)


def sounds(*seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = []
    for number, length in enumerate(seconds):
        time = np.arange(round(length * 48_000)) / 48_000
        tone = 0.5 * np.sin(2 * np.pi * 220 * 3**number * time) * np.exp(-(2**number) * time)
        made.append((tone + 0.1**number * 0.1 * rng.standard_normal(len(time))).astype(np.float32))
    return made


@torch.inference_mode()
def embed(tower: clap.AudioTower, audio: list[np.ndarray]) -> np.ndarray:
    return tower(torch.from_numpy(np.concatenate([ten_seconds(each[None]) for each in audio]))).numpy()


def test_sounds_have_the_packages_embeddings(package: Any, tower: clap.AudioTower) -> None:
    audio = sounds(1.46, 3.0, 10.0)
    expected = package.get_audio_embedding_from_data(audio)
    assert (np.abs(expected @ expected.T - 1.0) > 1e-3).sum() == 6  # they differ, so equality says something
    np.testing.assert_allclose(embed(tower, audio), expected, rtol=0, atol=1e-6)


def test_so_have_those_of_the_base_network(folder: Path) -> None:
    package = package_model(folder, "HTSAT-base", seed=1)
    tower = clap.read_published(write_checkpoint(package, folder / "music_audioset_epoch_15_esc_90.14.pt"))
    audio = sounds(2.0)
    expected = package.get_audio_embedding_from_data(audio)
    np.testing.assert_allclose(embed(tower, audio), expected, rtol=0, atol=1e-6)


def test_of_a_long_sound_always_the_first_ten_seconds_are_heard(package: Any, tower: clap.AudioTower) -> None:
    (audio,) = sounds(12.5)
    expected = package.get_audio_embedding_from_data([audio[:SAMPLES]])
    first, second = embed(tower, [audio]), embed(tower, [audio])
    np.testing.assert_allclose(first, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(first, second)


def test_short_sounds_are_repeated_whole_and_quantised() -> None:
    audio = np.float32([[0.5, -1.5, 1e-5]])
    heard = ten_seconds(np.tile(audio, (1, 70_000)))
    assert heard.shape == (1, SAMPLES)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard[0, :3], np.float32([16_383, -32_767, 0]) / 32_767, rtol=1e-7)
    np.testing.assert_array_equal(heard[0, 210_000:420_000], heard[0, :210_000])
    assert not heard[0, 420_000:].any()


def test_a_batch_gives_what_each_sound_gives_alone(tower: clap.AudioTower) -> None:
    audio = sounds(0.5, 3.0, 11.0)
    together = embed(tower, audio)
    alone = np.concatenate([embed(tower, [each]) for each in audio])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_words_have_the_packages_embeddings(package: Any, checkpoint: Path, folder: Path) -> None:
    describe = clap_text.read_published(checkpoint, folder / "vocab.json", folder / "merges.txt")
    texts = ["a brass sound", "an old piano", "Größe, russet", "so much to say " * 20]
    expected = package.get_text_embedding(texts)
    assert np.abs(expected @ expected.T - np.eye(4)).max() > 1e-3
    assert len({tuple(row.round(4)) for row in expected}) == 4
    np.testing.assert_allclose(describe(texts), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(describe(texts[2:3]), expected[2:3], rtol=0, atol=1e-6)


def test_the_encoder_gives_embedding_and_style_of_its_early_stages(
    checkpoint: Path, tower: clap.AudioTower
) -> None:
    clips = tones(3)
    encoder = open_encoder(NAME, weights=checkpoint)
    found = encoder.embed(clips)
    audio = ten_seconds(encoder.hears.of(clips))
    with torch.inference_mode():
        maps = tower.blocks(torch.from_numpy(audio))
    shapes = {name: tuple(each.shape[1:]) for name, each in maps.items()}
    assert shapes == {
        "patches": (96, 64, 64),
        "stage1": (96, 64, 64),
        "stage2": (192, 32, 32),
        "stage3": (384, 16, 16),
        "stage4": (768, 8, 8),
    }
    early = statistics({name: maps[name] for name in ("patches", "stage1", "stage2")}).numpy()
    np.testing.assert_allclose(found.style, early, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.embedding, embed(tower, list(encoder.hears.of(clips))), atol=1e-6)


def test_the_exported_tower_gives_the_same_for_any_batch(checkpoint: Path, tmp_path: Path) -> None:
    network = NETWORKS[NAME]
    graph = network.build(checkpoint, network.style)
    file = tmp_path / "clap.onnx"
    assert graph.write(file, network.front(network.hears.of(tones(3)))) < 1e-5
    alone = network.front(network.hears.of(tones(2)[:1]))
    assert max(graph.differences(file.read_bytes(), alone).values()) < 1e-5


class _Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('run')",)


def test_nothing_of_a_checkpoint_is_run(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    harmful = tmp_path / "harmful.pt"
    torch.save({"state_dict": {}, "optimizer": _Harm()}, harmful)
    with pytest.raises(DataError, match="holds no CLAP network"):
        clap.read_published(harmful)
    with pytest.raises(DataError, match="No such file"):
        clap.read_published(tmp_path / "gone.pt")
    other = tmp_path / "other.pt"
    torch.save({"features.0.0.weight": torch.zeros(8)}, other)
    with pytest.raises(DataError, match="audio_branch"):
        clap.read_published(other)
    with pytest.raises(DataError, match="not RoBERTa's vocabulary"):
        clap_text.read_published(checkpoint, folder / "merges.txt", folder / "vocab.json")


def test_without_the_package_one_is_told_how_to_get_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "timbrel_laion_clap.htsat", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="scripts/setup serve pipeline encoders"):
        open_encoder(NAME, weights=checkpoint).embed(tones(1))


def test_the_style_of_any_stage_may_be_asked_for(checkpoint: Path) -> None:
    style = Style(("stage4",), "gram")
    found = open_encoder(NAME, weights=checkpoint, style=style).embed(tones(1))
    assert found.style is not None
    assert found.style.shape == (1, 768 * 769 // 2)
