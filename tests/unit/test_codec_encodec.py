"""EnCodec: the numbers of the published implementations, both weight formats, the common interface, clear refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import encodec as reference
from torch import nn

from timbrel.codec.encodec import PUBLISHED_RANGE, Encodec
from timbrel.codec.encodec_weights import (
    PUBLISHED_FILE,
    PUBLISHED_FOLDER,
    find_weights,
    load_encodec,
    read_weights,
    save_encodec,
)
from timbrel.codec.in_process import TorchModels
from timbrel.codec.kinds import export_codec, open_codec, provenance
from timbrel.codec.network import CodecConfig, MagnitudeCodec
from timbrel.codec.runtime import Codec, MagnitudeCodecRuntime, codec_of
from timbrel.codec.storage import save_codec
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import DataError

# EnCodec rounds up to whole frames; below 7 frames and 9 samples its mirrored edges run out of signal.
LENGTHS = (1, 7, 320, 321, 2_239, 9_600, 24_001)


@pytest.fixture(scope="module")
def package() -> nn.Module:
    return reference.package_model(seed=5)


@pytest.fixture(scope="module")
def th_file(package: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's own format, under a name that carries the file's hash as the published one does."""
    path = tmp_path_factory.mktemp("weights") / "random.th"
    torch.save(package.state_dict(), path)
    return path.rename(path.with_name(f"random-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.th"))


@pytest.fixture(scope="module")
def quantised(th_file: Path) -> Encodec:
    return read_weights(th_file).network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hugging Face folder with a very small model."""
    reference.write_tiny_folder(tmp_path / "encodec_24khz")
    return tmp_path / "encodec_24khz"


def encode(network: Encodec, audio: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network.encode(torch.from_numpy(audio)).numpy()


def decode(network: Encodec, embedding: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network.decode(torch.from_numpy(embedding)).numpy()


@pytest.mark.parametrize("samples", LENGTHS)
def test_the_encodec_package_gives_the_same_embeddings_and_audio(
    package: nn.Module, quantised: Encodec, samples: int
) -> None:
    audio = reference.audio(samples, batch=2)
    _, embedding, decoded = reference.package_result(package, torch.from_numpy(audio))
    ours = encode(quantised, audio)
    assert ours.shape == (2, -(-samples // 320), 128)
    np.testing.assert_allclose(ours, embedding, rtol=0, atol=1e-4)
    np.testing.assert_allclose(decode(quantised, ours), decoded, rtol=0, atol=1e-4)
    # It is not two constants that agree.
    assert embedding.std() > 0.1
    assert decoded.std() > 0.1


def test_embeddings_that_are_not_quantised_are_the_encoders_output(package: nn.Module, th_file: Path) -> None:
    audio = reference.audio(5_000)
    raw, embedding, _ = reference.package_result(package, torch.from_numpy(audio))
    continuous = read_weights(th_file, quantisers=0).network
    np.testing.assert_allclose(encode(continuous, audio), raw, rtol=0, atol=1e-4)
    assert np.abs(raw - embedding).max() > 0.1


def test_half_of_the_codebooks_are_12_kilobits(package: Any, th_file: Path) -> None:
    audio = reference.audio(3_200)
    package.set_target_bandwidth(12.0)
    try:
        _, embedding, _ = reference.package_result(package, torch.from_numpy(audio))
    finally:
        package.set_target_bandwidth(24.0)
    half = read_weights(th_file, quantisers=16).network
    np.testing.assert_allclose(encode(half, audio), embedding, rtol=0, atol=1e-4)


@pytest.mark.parametrize("old_names", [False, True])
def test_a_hugging_face_folder_gives_what_transformers_gives(tmp_path: Path, old_names: bool) -> None:
    reference.write_tiny_folder(tmp_path / "folder", old_names=old_names)
    golden = np.load(reference.GOLDEN)
    network = read_weights(tmp_path / "folder", quantisers=4).network
    continuous = read_weights(tmp_path / "folder", quantisers=0).network
    for samples in reference.LENGTHS:
        audio = reference.audio(samples)
        embedding = encode(network, audio)
        np.testing.assert_allclose(encode(continuous, audio)[0], golden[f"raw_{samples}"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(embedding[0], golden[f"embedding_{samples}"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(
            decode(network, embedding)[0], golden[f"audio_{samples}"], rtol=0, atol=1e-4
        )


def test_the_pipelines_codec_is_encodec_in_the_published_range(
    package: nn.Module, th_file: Path, tmp_path: Path
) -> None:
    weights = read_weights(th_file, embedding_range=PUBLISHED_RANGE)
    save_encodec(weights, tmp_path, {"why": "test"})
    codec = open_codec(tmp_path)
    audio = reference.audio(3_500, batch=2)
    _, embedding, _ = reference.package_result(package, torch.from_numpy(audio))
    ours = codec.encode_batch(audio)
    # Ten whole frames: the interface leaves out the eleventh, which the last 300 samples only begin.
    assert ours.shape == (2, 10, 128)
    np.testing.assert_allclose(ours, (embedding[:, :10] + 25.0) / 58.5, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(codec.encode(audio[1]), ours[1])
    _, _, decoded = reference.package_result(package, torch.from_numpy(audio[:, :3_200]))
    np.testing.assert_allclose(codec.decode(ours[0]), np.clip(decoded[0], -1.0, 1.0), rtol=0, atol=1e-4)
    assert np.abs(decoded).max() > 1.0

    source, licence = provenance(tmp_path)
    assert licence == "CC-BY-NC-4.0"
    assert source == (
        f"EnCodec 24 kHz, weights supplied by the user: {th_file.name}, "
        f"sha256 {hashlib.sha256(th_file.read_bytes()).hexdigest()}"
    )
    assert json.loads((tmp_path / "codec.json").read_text())["record"] == {"why": "test"}


def test_nothing_in_nothing_out(folder: Path, tmp_path: Path) -> None:
    save_encodec(read_weights(folder, quantisers=4), tmp_path / "codec", {})
    codec = open_codec(tmp_path / "codec")
    assert codec.encode(np.zeros(319, dtype=np.float32)).shape == (0, 128)
    assert codec.decode(np.zeros((0, 128), dtype=np.float32)).shape == (0,)
    assert codec.encode_batch(np.zeros((0, 640), dtype=np.float32)).shape == (0, 2, 128)


def test_open_codec_opens_the_magnitude_codec_alike(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = MagnitudeCodec(CodecConfig(hidden=16))
    save_codec(network, tmp_path, {})
    codec, direct = open_codec(tmp_path), MagnitudeCodecRuntime(TorchModels(network))
    audio = reference.audio(4_000, batch=3) * np.float32(0.3)
    batch = codec.encode_batch(audio)
    np.testing.assert_array_equal(codec.encode(audio[2]), direct.encode(audio[2]))
    np.testing.assert_allclose(batch[2], codec.encode(audio[2]), atol=1e-4)
    np.testing.assert_array_equal(codec.decode(batch[0]), direct.decode(batch[0]))
    assert codec.encode_batch(np.zeros((2, 100), dtype=np.float32)).shape == (2, 0, 128)
    source, licence = provenance(tmp_path)
    assert licence == "CC0-1.0"
    assert source.endswith(hashlib.sha256((tmp_path / "codec.safetensors").read_bytes()).hexdigest())


@pytest.mark.parametrize("quantisers", [4, 0])
def test_onnx_equals_torch_at_any_batch_and_length(folder: Path, tmp_path: Path, quantisers: int) -> None:
    weights = read_weights(folder, quantisers=quantisers, embedding_range=(-2.0, 6.0))
    save_encodec(weights, tmp_path / "codec", {})
    paths = export_codec(tmp_path / "codec", tmp_path / "models")
    models = OnnxModels({path.stem: path for path in paths})
    for batch, samples in ((1, 1), (2, 7), (1, 320), (3, 321), (1, 2_239), (2, 24_001)):
        audio = reference.audio(samples, batch)
        embedding = encode(weights.network, audio)
        exported = models.run("codec_encoder", {"audio": audio})["embedding"]
        np.testing.assert_allclose(exported, embedding, rtol=0, atol=1e-4)
        decoded = models.run("codec_decoder", {"embedding": embedding})["audio"]
        np.testing.assert_allclose(decoded, decode(weights.network, embedding), rtol=0, atol=1e-4)

    served: Codec = codec_of(models, ["audio"])
    audio = reference.audio(2_000)[0]
    in_process = open_codec(tmp_path / "codec")
    np.testing.assert_allclose(served.encode(audio), in_process.encode(audio), rtol=0, atol=1e-4)
    embedding = in_process.encode(audio)
    np.testing.assert_allclose(served.decode(embedding), in_process.decode(embedding), rtol=0, atol=1e-4)


def test_a_bundle_with_spectra_is_the_magnitude_codec(tmp_path: Path) -> None:
    assert isinstance(codec_of(OnnxModels({}), {"log_magnitude": None}), MagnitudeCodecRuntime)


def refusal(path: Path, **how: Any) -> str:
    """The one line with which ``read_weights`` refuses; it always says how to get the weights, and their licence."""
    with pytest.raises(DataError) as caught:
        read_weights(path, **how)
    message = caught.value.message
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


ADVICE = (PUBLISHED_FILE, PUBLISHED_FOLDER, "codec.weights", "TIMBREL_WEIGHTS", "CC BY-NC 4.0")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none.th")
    assert "is missing" in message
    assert all(word in message for word in ADVICE)


def test_a_file_whose_name_promises_another(th_file: Path, tmp_path: Path) -> None:
    digest = th_file.stem.rpartition("-")[2]
    path = tmp_path / PUBLISHED_FILE
    path.hardlink_to(th_file)
    assert (
        refusal(path) == f"{path} is damaged: its sha256 begins with {digest}, not d7cc33bc; fetch it again"
    )


class Runs:
    """What a hostile pickle would do."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a file of torch weights"),
        (b"not a zip file, and not a pickle", "is not a file of torch weights"),
        (Runs(), "is not a file of torch weights"),
        ([torch.zeros(3)], "does not hold a model's weights by name"),
        ({"encoder.model.0.conv.conv.weight_g": torch.zeros(1)}, "lacks encoder.0.weight_v"),
        ({"layers.0.weight": torch.zeros(1)}, "lacks codebooks and"),
    ],
)
def test_a_file_of_something_else(
    tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.th"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    found = refusal(path)
    assert message in found
    assert all(word in found for word in ADVICE)
    assert capsys.readouterr().out == ""


def edited(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("encoder.layers.13.lstm.bias_hh_l1"), "lacks encoder.13.lstm.bias_hh_l1 and 0 more"),
        (lambda t: t.pop("quantizer.layers.1.codebook.embed"), "lacks some of its codebooks"),
        (
            lambda t: t.pop("quantizer.layers.3.codebook.embed"),
            "has codebooks as 3 × 16 × 128, EnCodec at 24 kHz as 4",
        ),
        (lambda t: t.update(extra=torch.zeros(2)), "holds extra, which EnCodec at 24 kHz has not"),
        (lambda t: t.update({"decoder.layers.0.conv.bias": torch.zeros(3)}), "has decoder.0.bias as 3, "),
    ],
)
def test_a_folder_with_other_keys(
    folder: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_weights(edited(folder, edit), quantisers=0)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_rate": 48_000}, "is not EnCodec at 24 kHz (sampling_rate is 48000)"),
        ({"model_type": "dac"}, "is not EnCodec at 24 kHz (model_type is 'dac')"),
        ({"upsampling_ratios": [8, 5, 4, 4]}, "has 640 samples a frame, not 320"),
        ({"num_filters": "many"}, "does not describe an EnCodec model"),
        ({"target_bandwidths": []}, "does not describe an EnCodec model"),
    ],
)
def test_a_folder_with_another_model(folder: Path, changes: dict[str, object], message: str) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    assert message in (found := refusal(folder))
    assert all(word in found for word in ADVICE)


def test_a_folder_that_is_not_whole(folder: Path) -> None:
    assert "4 codebooks, 32 are asked for" in refusal(folder)
    (folder / "model.safetensors").write_bytes(b"torn")
    assert "is not a safetensors file" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(folder)


def test_where_weights_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no EnCodec weights: take encodec_24khz-d7cc33bc\.th"):
        find_weights("", tmp_path / "none")
    with pytest.raises(DataError, match=r"TIMBREL_WEIGHTS.*timbrel weights fetch encodec-24khz"):
        find_weights("", tmp_path)
    (tmp_path / "encodec_24khz").mkdir()
    assert find_weights("", tmp_path) == tmp_path / "encodec_24khz"
    (tmp_path / PUBLISHED_FILE).touch()
    assert find_weights("", tmp_path) == tmp_path / PUBLISHED_FILE
    assert find_weights("given.th", tmp_path) == Path("given.th")


def test_kept_codecs_come_back_and_torn_ones_do_not(folder: Path, tmp_path: Path) -> None:
    weights = read_weights(folder, quantisers=3, embedding_range=(-1.0, 2.5))
    kept = tmp_path / "codec"
    save_encodec(weights, kept, {})
    again = load_encodec(kept)
    assert again.network.config == weights.network.config
    assert (again.source, again.licence, again.sha256) == (weights.source, weights.licence, weights.sha256)
    audio = reference.audio(1_234)
    np.testing.assert_array_equal(encode(again.network, audio), encode(weights.network, audio))

    file = kept / "codec.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="is not the file that"):
        open_codec(kept)
    file.unlink()
    with pytest.raises(DataError, match=r"codec\.safetensors is missing"):
        open_codec(kept)
    (kept / "codec.json").write_text('{"kind": "mp3"}')
    with pytest.raises(DataError, match="'mp3', not magnitude or encodec"):
        open_codec(kept)
    (kept / "codec.json").unlink()
    with pytest.raises(DataError, match=r"codec\.json is missing"):
        open_codec(kept)
