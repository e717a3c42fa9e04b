"""What is generated from timbrel.proto is what is in the repository."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from grpc_tools import protoc

from timbrel.settings import ROOT


def test_the_generated_modules_are_those_of_the_interface(tmp_path: Path) -> None:
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{ROOT / 'src'}", f"-I{well_known}", *out, "timbrel/v1/timbrel.proto"]
    assert protoc.main(arguments) == 0
    generated = sorted((tmp_path / "timbrel" / "v1").iterdir())
    assert [path.name for path in generated] == [
        "timbrel_pb2.py", "timbrel_pb2.pyi", "timbrel_pb2_grpc.py",
    ]  # fmt: skip
    for path in generated:
        kept = ROOT / "src" / "timbrel" / "v1" / path.name
        assert path.read_bytes() == kept.read_bytes(), f"{path.name} is old: make proto"
