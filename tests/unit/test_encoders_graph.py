"""A network with named inputs and outputs: torch and onnxruntime alike, or no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from timbrel.encoders.graph import Free, Graph, tones
from timbrel.errors import DataError


class Scaled(nn.Module):
    """Sum and scaled mean over the free length of ``a``, both shifted by ``b``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a.sum(dim=2) + b, self.scale * a.mean(dim=2) + b


def scaled() -> Graph:
    inputs = {"a": (Free("b"), 3, Free("n", least=2, traced=5)), "b": (Free("b"), 3)}
    return Graph(Scaled(2.0).eval(), inputs, ("added", "averaged"))


def values(batch: int, length: int) -> dict[str, np.ndarray]:
    a = np.arange(batch * 3 * length, dtype=np.float32).reshape(batch, 3, length)
    return {"a": a, "b": np.ones((batch, 3), dtype=np.float32)}


def test_it_is_asked_by_names() -> None:
    found = scaled().run("whatever", values(1, 2))
    np.testing.assert_array_equal(found["added"], [[2.0, 6.0, 10.0]])
    np.testing.assert_array_equal(found["averaged"], [[2.0, 6.0, 10.0]])


def test_the_file_has_the_names_and_takes_every_size(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "scaled.onnx"
    assert scaled().write(path, values(4, 7)) < 1e-6
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape) for each in session.get_inputs()] == [
        ("a", ["b", 3, "n"]),
        ("b", ["b", 3]),
    ]
    for size in ((1, 2), (9, 100)):
        wanted = scaled().run("", values(*size))
        found = dict(
            zip(("added", "averaged"), session.run(["added", "averaged"], values(*size)), strict=True)
        )
        for name, expected in wanted.items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_a_file_that_computes_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = scaled()
    content = graph.onnx()
    other = Graph(Scaled(2.01).eval(), graph.inputs, graph.outputs)
    differences = other.differences(content, values(2, 2))
    assert differences["added"] == 0.0
    # The largest number is the mean of 10 and 11, doubled, and 1: 22, or 0.105 more.
    assert differences["averaged"] == pytest.approx(0.105 / 22.105, rel=1e-4)
    monkeypatch.setattr(Graph, "onnx", lambda self: content)
    with pytest.raises(DataError, match=r"differs from torch's by 0\.0048; .* not written"):
        other.write(tmp_path / "other.onnx", values(2, 2))
    assert list(tmp_path.iterdir()) == []


def test_tones_are_sounds_and_a_silence() -> None:
    clips = tones(3)
    assert clips.shape == (3, 72_000)
    assert clips.dtype == np.float32
    assert np.abs(clips[:2]).max(axis=1).min() > 0.05
    assert not clips[2].any()
    # The first tone is of 110 Hz.
    spectrum = np.abs(np.fft.rfft(clips[0]))
    assert int(np.argmax(spectrum)) == 330
