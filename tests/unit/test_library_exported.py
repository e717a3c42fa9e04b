"""Exported encoders on disk: whole and named for what they are, or refused; and their place in Triton's repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from timbrel import settings
from timbrel.errors import BundleError, ConfigurationError
from timbrel.files import sha256_of
from timbrel.library.exported import Exported, read_exported
from timbrel.library.manifest import ModelEntry, Tensor
from timbrel.serving.triton_files import lay_out_encoders

CONFIGURATIONS = settings.ROOT / "model_repository"


def tensor(*shape: int | str) -> Tensor:
    return Tensor(dtype="float32", shape=shape)


def write(folder: Path, name: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Exported:
    """The bytes are no network: nothing here runs them."""
    folder.mkdir(exist_ok=True)
    weights = folder / f"{name}.onnx"
    weights.write_bytes(name.encode())
    made = Exported(
        name=name,
        sha256=sha256_of(weights),
        model=ModelEntry(file=weights.name, source="here", licence="MIT", inputs=inputs, outputs=outputs),
        hears={"sample_rate": 32_000, "samples": 96_000},
        style={"blocks": None, "kind": "moments"},
    )
    made.write(folder)
    return made


def efficientat(folder: Path, name: str) -> Exported:
    outputs = {"embedding": tensor("b", 384), "logits": tensor("b", 527), "style": tensor("b", 1_792)}
    return write(folder, name, {"audio": tensor("b", "samples")}, outputs)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = [efficientat(tmp_path, name) for name in ("efficientat-mn10", "efficientat-mn04")]
    assert read_exported(tmp_path) == made[::-1]


def test_torn_foreign_and_misnamed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no exported encoder: `timbrel encoders export NAME --to"):
        read_exported(tmp_path)
    efficientat(tmp_path, "efficientat-mn04")
    weights, sidecar = (tmp_path / f"efficientat-mn04.{kind}" for kind in ("onnx", "json"))
    content = json.loads(sidecar.read_text())
    for wrong, reason in (
        (content | {"format": "other"}, "describes no exported encoder"),
        (content | {"model": {}}, "describes no exported encoder"),
        (content | {"name": "efficientat-mn10"}, "is of 'efficientat-mn10'"),
        ([], "describes no exported encoder"),
    ):
        sidecar.write_text(json.dumps(wrong))
        with pytest.raises(BundleError, match=reason):
            read_exported(tmp_path)
    sidecar.write_text(json.dumps(content))
    weights.write_bytes(b"torn")
    with pytest.raises(BundleError, match=r"efficientat-mn04\.onnx is not the file"):
        read_exported(tmp_path)
    weights.unlink()
    sidecar.unlink()
    efficientat(tmp_path, "timbre_encoder")
    with pytest.raises(BundleError, match="is no name for it"):
        read_exported(tmp_path)


def test_each_gets_a_configuration_with_its_name_and_sizes(tmp_path: Path) -> None:
    for name in ("efficientat-mn04", "efficientat-mn10"):
        efficientat(tmp_path / "encoders", name)
    names = lay_out_encoders(tmp_path / "encoders", CONFIGURATIONS, tmp_path / "models")
    assert names == ["efficientat-mn04", "efficientat-mn10"]
    for name in names:
        assert (tmp_path / "models" / name / "1" / "model.onnx").read_bytes() == name.encode()
        text = (tmp_path / "models" / name / "config.pbtxt").read_text()
        configuration = text_format.Parse(text, ModelConfig())
        assert configuration.name == name
        assert configuration.backend == "onnxruntime"
        sizes = {each.name: list(each.dims) for each in (*configuration.input, *configuration.output)}
        assert sizes == {"audio": [-1], "embedding": [384], "logits": [527], "style": [1_792]}


@pytest.mark.parametrize(
    ("inputs", "sizes"),
    [
        ({"audio": tensor("b", 480_000)}, {"audio": [480_000]}),
        ({"pictures": tensor("b", "windows", 256, 199)}, {"pictures": [-1, 256, 199]}),
    ],
    ids=["audio", "pictures"],
)
def test_there_is_a_configuration_for_every_kind_of_input(
    tmp_path: Path, inputs: dict[str, Tensor], sizes: dict[str, list[int]]
) -> None:
    outputs = {"embedding": tensor("b", 512), "style": tensor("b", 640)}
    write(tmp_path / "encoders", "other", inputs, outputs)
    lay_out_encoders(tmp_path / "encoders", CONFIGURATIONS, tmp_path / "models")
    text = (tmp_path / "models" / "other" / "config.pbtxt").read_text()
    configuration = text_format.Parse(text, ModelConfig())
    assert {each.name: list(each.dims) for each in configuration.input} == sizes
    assert {each.name: list(each.dims) for each in configuration.output} == {
        "embedding": [512],
        "style": [640],
    }
    usual = CONFIGURATIONS / "published_encoder" / "config.pbtxt"
    described = text_format.Parse(usual.read_text(), ModelConfig())
    # Nothing else differs between them.
    for each in (configuration, described):
        for field in ("name", "input", "output"):
            each.ClearField(field)
    assert configuration == described


def test_an_encoder_with_other_tensors_has_no_configuration(tmp_path: Path) -> None:
    write(tmp_path / "encoders", "other", {"image": tensor("b", 3)}, {"embedding": tensor("b", 2)})
    with pytest.raises(ConfigurationError, match="names other tensors"):
        lay_out_encoders(tmp_path / "encoders", CONFIGURATIONS, tmp_path / "models")
