"""EfficientAT beside its reference implementation: mel picture, embedding, logits, sizes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from timbrel.encoders.efficientat import WIDTHS, EfficientAt, divisible, read_published
from timbrel.encoders.efficientat_audio import SHORTEST, Picture
from timbrel.encoders.efficientat_mel import filters, picture
from timbrel.encoders.graph import tones
from timbrel.encoders.interface import Hearing
from timbrel.errors import DataError

SHARED = os.environ.get("TIMBREL_SHARED", "")
needs_shared = pytest.mark.skipif(not SHARED, reason="TIMBREL_SHARED is not set: no weights to compare with")
SOUNDS = ("saw_220", "fm_bell_523", "noise", "square_110_am")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(SHARED, "golden/efficientat_mn04_golden.npz"), allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def published() -> Path:
    return Path(SHARED, "weights/mn04_as_mAP_432.pt")


@needs_shared
@pytest.mark.parametrize("sound", SOUNDS)
def test_it_gives_the_numbers_of_the_reference(
    golden: dict[str, np.ndarray], published: Path, sound: str
) -> None:
    pictures = picture(golden[f"{sound}__wave"][None])
    np.testing.assert_allclose(pictures[0, 0], golden[f"{sound}__mel"], rtol=0, atol=1e-4)
    in_graph = Picture()(torch.from_numpy(golden[f"{sound}__wave"][None]))
    np.testing.assert_allclose(in_graph[0, 0], golden[f"{sound}__mel"], rtol=0, atol=1e-4)
    with torch.inference_mode():
        found = read_published(published)(torch.from_numpy(pictures))
    for name, values in zip(("embedding", "logits"), found, strict=True):
        wanted = golden[f"{sound}__{name}"]
        assert np.abs(values[0].numpy() - wanted).max() < 1e-4 * np.abs(wanted).max(), name


@needs_shared
def test_a_batch_gives_what_each_sound_gives_alone(golden: dict[str, np.ndarray], published: Path) -> None:
    network = read_published(published)
    pictures = torch.from_numpy(picture(np.stack([golden[f"{sound}__wave"] for sound in SOUNDS])))
    with torch.inference_mode():
        together = network(pictures)[0]
        alone = torch.cat([network(one[None])[0] for one in pictures])
        maps = network.blocks(pictures)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert list(maps) == [f"block{number}" for number in range(17)]
    torch.testing.assert_close(maps["block16"].mean(dim=(2, 3)), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("mn04", 0.983), ("mn05", 1.43), ("mn10", 4.88), ("mn20", 17.91), ("mn30", 39.09), ("mn40", 68.43)],
)
def test_every_width_has_the_published_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = EfficientAt(WIDTHS[name])
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=2e-3)


@pytest.mark.parametrize("samples", [SHORTEST, 514, 10_001, 96_000])
def test_the_picture_in_the_graph_is_the_one_of_numpy(samples: int) -> None:
    sounds = np.pad(Hearing(32_000).of(tones(4))[:, :samples], ((0, 0), (0, max(0, 514 - samples))))
    found = Picture()(torch.from_numpy(sounds[:, :samples])).numpy()
    assert found.shape == (4, 1, 128, 1 + (samples - 1) // 320)
    # numpy's mirrors more samples than the window lets through, and so wants some more.
    frames = found.shape[-1] - (samples < 514)
    np.testing.assert_allclose(found[..., :frames], picture(sounds)[..., :frames], rtol=0, atol=1e-4)


def test_channels_are_multiples_of_eight_and_hardly_fewer() -> None:
    assert [divisible(channels) for channels in (6.4, 9.6, 12.0, 44.8, 64.0, 67.2)] == [8, 16, 16, 48, 64, 64]


def test_bands_are_triangles_up_to_15_kilohertz() -> None:
    bands = filters()
    assert bands.shape == (513, 128)
    assert bands.max() <= 1.0
    assert not bands[0].any()
    assert not bands[int(15_000 / 31.25) :].any()
    # Between the first band's top and the last one's every bin is shared by two neighbours, in parts that sum to 1.
    tops = bands.argmax(axis=0)
    np.testing.assert_allclose(bands[tops[40] : tops[-1]].sum(axis=1), 1.0, atol=1e-5)


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_published(tmp_path / "mn04_as_mAP_432.pt")
    other = tmp_path / "other.pt"
    torch.save({"classifier.2.weight": torch.zeros(512, 384)}, other)
    with pytest.raises(DataError, match="holds no EfficientAT"):
        read_published(other)
    other.write_bytes(b"no weights")
    with pytest.raises(DataError, match="holds no EfficientAT"):
        read_published(other)
