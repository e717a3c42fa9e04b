"""OpenL3: the original's pictures and embeddings with random weights, both bands and sizes; files, windows, export."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.openl3 import GOLDEN, sound, write_published

from timbrel.encoders.graph import tones
from timbrel.encoders.interface import Style
from timbrel.encoders.openl3 import OpenL3, graph, read_published
from timbrel.encoders.openl3_mel import ENCODER_HOP_SECONDS, filters, picture, pictures, windows
from timbrel.encoders.registry import open_encoder
from timbrel.encoders.style import statistics
from timbrel.errors import ConfigurationError, DataError

MUSIC = "openl3_audio_mel256_music.h5"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("openl3") / MUSIC)


@pytest.fixture(scope="module")
def network(file: Path) -> OpenL3:
    return read_published(file)


@torch.inference_mode()
def run(network: OpenL3, made: np.ndarray) -> np.ndarray:
    return network(torch.from_numpy(made[:, None])).numpy()


def largest_share(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("bands", [128, 256])
def test_pictures_and_embeddings_are_the_originals(
    golden: dict[str, np.ndarray], tmp_path: Path, bands: int
) -> None:
    made = picture(windows(sound()[None]), bands)[0]
    assert largest_share(made[1], golden[f"mel{bands}"]) < 2e-5
    path = write_published(tmp_path / f"openl3_audio_mel{bands}_music.h5")
    assert largest_share(run(read_published(path), made), golden[f"mel{bands}_512"]) < 1e-5
    long = run(read_published(path, 6_144), made[1:2])
    assert largest_share(long[0], golden[f"mel{bands}_6144"]) < 1e-5


def test_files_packed_or_from_before_the_front_end_left_them_are_read(
    network: OpenL3, tmp_path: Path
) -> None:
    packed = read_published(write_published(tmp_path / "openl3_audio_mel256_music-v0_4_0.h5.gz"))
    older = read_published(write_published(tmp_path / MUSIC, older=True))
    expected = network.state_dict()
    for found in (packed.state_dict(), older.state_dict()):
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_windows_are_centred_on_every_hop() -> None:
    audio = np.arange(1, 100_001, dtype=np.float32)[None]
    made = windows(audio, 0.25)[0]
    assert made.shape == (1 + -(-(100_000 + 24_000 - 48_000) // 12_000), 48_000)
    assert not made[0, :24_000].any()
    assert [each[24_000] for each in made[:7]] == [1 + 12_000 * i for i in range(7)]
    assert made[-1].max() == 100_000  # nothing is left out
    assert windows(audio[:, :10], 0.25).shape == (1, 1, 48_000)


def test_a_sine_is_loudest_in_its_band_and_silence_is_flat() -> None:
    time = np.arange(48_000) / 48_000
    made = picture(np.sin(2 * np.pi * 3_000 * time).astype(np.float32))
    top = made[:, 50].argmax()
    bank = filters()
    assert bank[round(3_000 / (48_000 / 2_048)), top] > 0.5 * bank[:, top].max()
    assert made.max() == 0.0
    assert not picture(np.zeros(48_000, np.float32)).any()


def test_bands_have_equal_area() -> None:
    # Of wide bands, whose triangles have many bins.
    area = filters(128)[:, 100:].sum(axis=0) * (48_000 / 2_048)
    np.testing.assert_allclose(area, 1.0, rtol=5e-3)


def test_the_exported_network_gives_the_same_for_any_number_of_windows(
    network: OpenL3, tmp_path: Path
) -> None:
    made = graph(network, Style())
    # Of every convolution, tones and silence: large maps of nearly equal numbers are what sums go wrong on.
    sounds = pictures(np.repeat(tones(2), 2, axis=1))
    assert made.write(tmp_path / "openl3.onnx", {"pictures": sounds["pictures"][:, :2]}) < 1e-4
    three = {"pictures": sounds["pictures"][:1, :3]}
    assert max(made.differences((tmp_path / "openl3.onnx").read_bytes(), three).values()) < 1e-4


def test_embedding_and_style_are_means_over_windows(network: OpenL3, file: Path) -> None:
    clips = tones(3)[1:]  # the last is silent
    encoder = open_encoder("openl3-512", weights=file)
    found = encoder.embed(clips)
    made = picture(windows(encoder.hears.of(clips), ENCODER_HOP_SECONDS))
    assert made.shape == (2, 6, 256, 199)
    with torch.inference_mode():
        maps = network.blocks(torch.from_numpy(made[0, :, None]))
    assert list(maps) == [f"convolution{i}" for i in range(1, 9)]
    assert found.style is not None
    assert found.style.shape == (2, 2 * sum(each.shape[1] for each in maps.values()))
    assert largest_share(found.embedding[0], run(network, made[0]).mean(axis=0)) < 1e-5
    assert largest_share(found.style[0], statistics(maps).numpy().mean(axis=0)) < 1e-5
    # A clip is what it is, whatever comes with it.
    np.testing.assert_array_equal(encoder.embed(clips[:1]).embedding[0], found.embedding[0])


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="_mel128_ or _mel256_"):
        read_published(tmp_path / "openl3_audio_linear_music.h5")
    with pytest.raises(DataError, match="No such file"):
        read_published(tmp_path / MUSIC)
    with pytest.raises(ConfigurationError, match="512"):
        read_published(file, 1_024)
    torn = tmp_path / MUSIC
    torn.write_bytes(file.read_bytes()[:1_000_000])
    with pytest.raises(DataError, match="holds no OpenL3"):
        read_published(torn)
    with h5py.File(torn, "w") as empty:
        empty.attrs["layer_names"] = []
    with pytest.raises(DataError, match="0 convolutions, 0 normalisations"):
        read_published(torn)
