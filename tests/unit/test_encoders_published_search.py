"""Published networks in the place of the timbre encoder: they hear what they do by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.published import write_random_efficientat

from timbrel.encoders import clap_input, export, published_search
from timbrel.encoders.graph import tones
from timbrel.encoders.interface import Hearing
from timbrel.encoders.published_search import Resampled, TenSeconds
from timbrel.encoders.registry import open_encoder
from timbrel.errors import DataError


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_random_efficientat(tmp_path / "mn05_as_mAP_000.pt", "mn05")
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("rate", [32_000, 48_000])
def test_resampling_in_the_graph_is_the_usual_one(rate: int) -> None:
    clips = tones(4)
    found = Resampled(rate)(torch.from_numpy(clips)).numpy()
    expected = Hearing(rate).of(clips)
    assert found.shape == expected.shape
    # Both filters differ just below Nyquist, where these tones and their noise have next to nothing.
    inner = slice(2_000, -2_000)
    error = np.square(found - expected)[:, inner].sum() / np.square(expected)[:, inner].sum()
    assert 10 * np.log10(error) < -35


def test_three_seconds_become_claps_ten() -> None:
    audio = Hearing(48_000).of(tones(3)) * 3.0
    found = TenSeconds()(torch.from_numpy(audio)).numpy()
    np.testing.assert_allclose(found, clap_input.ten_seconds(audio), rtol=0, atol=1.1 / 32_767)
    assert np.mean(found != clap_input.ten_seconds(audio)) < 1e-3


def test_the_vectors_are_those_of_the_network_itself(weights: Path, tmp_path: Path) -> None:
    name = "efficientat-mn05"
    clips = tones(4)[:3]
    encoder = published_search.open_published(name, name)
    found = published_search.graph(encoder).run("", {"audio": clips})
    expected = open_encoder(name).embed(clips)
    assert expected.style is not None
    for vectors, right in ((found["stage1"], expected.embedding), (found["stage2"], expected.style)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        cosine = (vectors * right).sum(axis=1) / np.linalg.norm(right, axis=1)
        # Random weights magnify what the two filters do just below Nyquist.
        assert cosine.min() > 0.998
    assert export.export(encoder, tmp_path / "timbre_encoder.onnx") < 1e-4


def test_which_networks_were_measured_is_kept_and_held_to(weights: Path, tmp_path: Path) -> None:
    sources = published_search.find("efficientat-mn05", "efficientat-mn05")
    folder = tmp_path / "encoder"
    folder.mkdir()
    assert published_search.described(folder) is None
    published_search.describe(folder, sources, {"stage1.recall1": 0.5})
    assert published_search.described(folder) == sources
    write = (weights / "mn05_as_mAP_000.pt").read_bytes()
    (weights / "mn05_as_mAP_000.pt").write_bytes(write + b"x")
    with pytest.raises(DataError, match="is not the file that"):
        published_search.described(folder)
    with pytest.raises(DataError, match="timbrel weights fetch clap-music"):
        published_search.find("efficientat-mn05", "clap-music")
