"""Encoders by name: what each gives, what it is given, and what is said when it cannot be opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.published import write_random_efficientat

from timbrel.cli import main
from timbrel.encoders import baselines
from timbrel.encoders.efficientat import read_published
from timbrel.encoders.efficientat_mel import picture
from timbrel.encoders.graph import tones
from timbrel.encoders.interface import Hearing, Style
from timbrel.encoders.registry import ENCODERS, NETWORKS, Ours, open_encoder
from timbrel.errors import ConfigurationError, DataError, NotFound


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mn04_as_mAP_000.pt"
    write_random_efficientat(path, "mn04")
    return path


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest, relative to the largest number."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_clips_come_at_the_rate_that_a_network_hears() -> None:
    seconds = np.arange(72_000) / 24_000
    clips = np.float32([np.sin(2 * np.pi * 1_000 * seconds), np.zeros(72_000)])
    assert Hearing().of(clips) is clips
    heard = Hearing(32_000).of(clips)
    assert heard.shape == (2, Hearing(32_000).samples) == (2, 96_000)
    wanted = np.sin(2 * np.pi * 1_000 * np.arange(96_000) / 32_000)
    np.testing.assert_allclose(heard[0, 500:-500], wanted[500:-500], atol=1e-4)
    assert not heard[1].any()


def test_the_bundles_own_are_asked_through_the_bundle() -> None:
    given: list[np.ndarray] = []

    def latents(clips: np.ndarray) -> np.ndarray:
        given.append(clips)
        return np.stack([np.full((4, 128), 3.0), np.tile([[1.0], [5.0], [1.0], [5.0]], 128)])

    ours = Ours(lambda clips: (clips[:, :2], clips[:, :3]), latents)
    clips = np.float32([[0.5, -0.25, 0.0], [0.0, 0.0, 0.0]])
    found = open_encoder("timbre", ours=ours).embed(clips)
    np.testing.assert_array_equal(found.embedding, clips[:, :2])
    np.testing.assert_array_equal(found.style, clips)
    codec = open_encoder("codec", ours=ours).embed(clips)
    assert codec.style is None
    np.testing.assert_array_equal(codec.embedding, np.repeat([[3.0, 0.0], [3.0, 2.0]], 128, axis=1))
    # The codec's levels are absolute: a note comes with its peak at -1 dBFS, silence stays silent.
    np.testing.assert_allclose(given[0][0], np.float32([1.0, -0.5, 0.0]) * 10 ** (-1 / 20), rtol=1e-6)
    assert not given[0][1].any()
    for name in ("timbre", "codec"):
        with pytest.raises(ConfigurationError, match="open it with a bundle"):
            open_encoder(name)


def test_baselines_are_those_functions() -> None:
    clips = tones(2)
    np.testing.assert_array_equal(open_encoder("mfcc").embed(clips).embedding, baselines.mfcc(clips))
    np.testing.assert_array_equal(open_encoder("mel").embed(clips).embedding, baselines.mel(clips))


def test_a_published_network_gives_embedding_and_style_of_its_picture(weights: Path) -> None:
    clips = tones(3)
    encoder = open_encoder("efficientat-mn04", weights=weights)
    found = encoder.embed(clips)
    # The same by the numpy picture and the network alone.
    import torch

    with torch.inference_mode():
        maps = read_published(weights).blocks(torch.from_numpy(picture(encoder.hears.of(clips))))
    means = {name: each.mean(dim=(2, 3)).numpy() for name, each in maps.items()}
    assert _difference(found.embedding, means["block16"]) < 1e-4
    assert found.style is not None
    assert found.style.shape == (3, 1_792)
    assert _difference(found.style[:, :8], means["block0"]) < 1e-4
    assert _difference(found.style[:, -768:-384], means["block16"]) < 1e-4
    spread = maps["block16"].std(dim=(2, 3), unbiased=False).numpy()
    assert _difference(found.style[:, -384:], np.sqrt(spread**2 + 1e-5)) < 1e-4
    chosen = open_encoder("efficientat-mn04", weights=weights, style=Style(("block0", "block1"), "gram"))
    assert chosen.embed(clips).style.shape == (3, 2 * 8 * 9 // 2)  # type: ignore[union-attr]


def test_a_served_network_needs_neither_torch_nor_its_file() -> None:
    asked: list[tuple[str, int]] = []

    def run(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        audio = inputs["audio"]
        asked.append((model, len(audio)))
        return {"embedding": audio[:, :2], "logits": audio[:, :3], "style": audio[:, :4]}

    clips = np.zeros((20, 72_000), dtype=np.float32)
    found = open_encoder("efficientat-mn40", run=run).embed(clips)  # type: ignore[arg-type]
    assert found.embedding.shape == (20, 2)
    # No more at once than a model server takes.
    assert asked == [("efficientat-mn40", 16), ("efficientat-mn40", 4)]
    code = "import sys; from timbrel.encoders import registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_cannot_be_opened_says_why(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    with pytest.raises(NotFound, match="there are timbre, codec, mfcc, mel, efficientat-mn04"):
        open_encoder("vggish")
    with pytest.raises(DataError, match="timbrel weights fetch efficientat-mn04"):
        open_encoder("efficientat-mn04")
    with pytest.raises(DataError, match=r"no mn10_as_mAP_\*\.pt in .* TIMBREL_WEIGHTS"):
        open_encoder("efficientat-mn10")
    with pytest.raises(DataError, match="of another width than mn10"):
        open_encoder("efficientat-mn10", weights=weights)
    with pytest.raises(ConfigurationError, match="no block 'stem'"):
        open_encoder("efficientat-mn04", weights=weights, style=Style(("stem",))).embed(tones(1))


def test_a_file_of_a_width_without_a_known_hash_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    write_random_efficientat(tmp_path / "mn05_as_mAP_443.pt", "mn05")
    found = open_encoder("efficientat-mn05").embed(tones(2))
    assert found.embedding.shape == (2, 480)


def test_the_command_lists_what_is_here_and_exports_nothing_else(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMBREL_WEIGHTS", str(tmp_path))
    (tmp_path / "mn10_as_mAP_471.pt").write_bytes(b"no weights")
    lines = CliRunner().invoke(main, ["encoders", "list"]).stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert set(rows) == {"name", *ENCODERS}
    assert rows["mfcc"][:3] == ["24000", "Hz", "here"]
    assert rows["efficientat-mn10"] == ["32000", "Hz", "here", "mn10_as_mAP_471.pt"]
    assert rows["efficientat-mn04"][:3] == ["32000", "Hz", "-"]
    for name, reason, *options in (
        ("mfcc", "no published encoder is called 'mfcc'"),
        ("efficientat-mn04", "timbrel weights fetch efficientat-mn04"),
        ("efficientat-mn10", "holds no EfficientAT network"),
        ("efficientat-mn04", "there is no block 'stem'", "--weights", str(weights), "--block", "stem"),
    ):
        command = ["encoders", "export", name, "--to", str(tmp_path / "out"), *options]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2
        assert reason in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_encoder_has_a_name_of_its_own() -> None:
    assert len(set(ENCODERS)) == len(ENCODERS)
    assert set(NETWORKS) <= set(ENCODERS)
