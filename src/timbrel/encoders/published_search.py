"""Published networks in the place of the timbre encoder: clips in, both vectors of the search out, in one graph.

    clip [b, 72000] ─┬► 32 kHz ─► EfficientAT ─► embedding ─► stage1 [b, d1]
                     └► 48 kHz ─► CLAP ────────► style ─────► stage2 [b, d2]

The library, the index, the engine and Triton ask it as they ask ours: its inputs and outputs have the same names, the
vectors have length 1. Resampling is in the graph, for whoever asks has clips at 24 kHz; it is a windowed sinc.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import clap_input
from timbrel.encoders.frontend import CLIP_SAMPLES, SAMPLE_RATE
from timbrel.encoders.graph import Free, Graph
from timbrel.encoders.registry import published_network
from timbrel.errors import DataError
from timbrel.files import atomic_write, sha256_of

DESCRIPTION = "published.json"
_FORMAT = "timbrel-published-search-1"
_HALF_WIDTH = 64  # input samples on either side of an output sample
_SHARPNESS = 10.0  # of the Kaiser window: what aliases is 100 dB down
_PASSED = 0.95  # of the lower Nyquist frequency


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A published network as it was used: ``name`` in the registry, its file's name and SHA-256."""

    name: str
    file: str
    sha256: str
    about: str
    licence: str

    @property
    def told(self) -> str:
        """For the manifest: what it is, and which file."""
        return f"{self.about}; {self.file} sha256 {self.sha256}"


class Resampled(nn.Module):
    """[b, n] at 24 kHz to [b, n · rate / 24000]; n is a multiple of the ratio's denominator."""

    kernels: Tensor

    def __init__(self, rate: int) -> None:
        super().__init__()
        common = int(np.gcd(rate, SAMPLE_RATE))
        self.up, self.down = rate // common, SAMPLE_RATE // common
        # Output sample q * up + p lies p * down / up input samples after input sample q * down.
        at = np.arange(2 * _HALF_WIDTH + self.down) - _HALF_WIDTH
        apart = at[None, :] - np.arange(self.up)[:, None] * self.down / self.up
        window = np.i0(_SHARPNESS * np.sqrt(np.clip(1.0 - (apart / _HALF_WIDTH) ** 2, 0.0, None)))
        window = np.where(np.abs(apart) <= _HALF_WIDTH, window / np.i0(_SHARPNESS), 0.0)
        kernels = _PASSED * np.sinc(_PASSED * apart) * window
        self.register_buffer(
            "kernels", torch.from_numpy(kernels.astype(np.float32))[:, None], persistent=False
        )

    def forward(self, audio: Tensor) -> Tensor:
        padded = functional.pad(audio[:, None], (_HALF_WIDTH, _HALF_WIDTH))
        return functional.conv1d(padded, self.kernels, stride=self.down).transpose(1, 2).flatten(1)


class TenSeconds(nn.Module):
    """``clap_input.ten_seconds`` of three: 16-bit numbers, repeated while they fit in whole, then zeros."""

    def forward(self, audio: Tensor) -> Tensor:
        scaled = audio.clamp(-1.0, 1.0) * 32_767.0
        quantised = scaled.abs().floor() * scaled.sign() / 32_767.0
        times = clap_input.SAMPLES // quantised.shape[1]
        whole = torch.cat([quantised] * times, dim=1)
        return functional.pad(whole, (0, clap_input.SAMPLES - whole.shape[1]))


class Heard(nn.Module):
    """One published network on clips [b, 72000]: its graph's outputs by name."""

    def __init__(self, name: str, file: Path) -> None:
        super().__init__()
        network = published_network(name)
        graph = network.build(file, network.style)
        self.outputs = graph.outputs
        front: list[nn.Module] = [Resampled(network.hears.sample_rate)]
        if name.startswith("clap-"):
            front.append(TenSeconds())
        self.front = nn.Sequential(*front)
        self.network = graph.module

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.outputs, self.network(self.front(audio)), strict=True))


class PublishedEncoder(nn.Module):
    """Clips [b, 72000] to stage 1, an embedding [b, d1], and stage 2, a style [b, d2]; both of length 1."""

    def __init__(self, stage1: Heard, stage2: Heard) -> None:
        super().__init__()
        self.stage1 = stage1
        self.stage2 = stage2

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stage1(audio)
        second = first if self.stage2 is self.stage1 else self.stage2(audio)
        return functional.normalize(first["embedding"], dim=1), functional.normalize(second["style"], dim=1)


def find(stage1: str, stage2: str) -> tuple[Source, Source]:
    """What both stages would be computed with. Raises DataError that says how to get what is missing."""
    return _source(stage1), _source(stage2)


def open_published(stage1: str, stage2: str) -> PublishedEncoder:
    """Both networks from where published weights lie, in evaluation mode. Raises DataError as ``find``."""
    first = Heard(stage1, published_network(stage1).file())
    second = first if stage2 == stage1 else Heard(stage2, published_network(stage2).file())
    return PublishedEncoder(first, second).eval()


def graph(encoder: PublishedEncoder) -> Graph:
    """``audio`` to ``stage1`` and ``stage2``; the batch is free."""
    return Graph(encoder, inputs={"audio": (Free("b"), CLIP_SAMPLES)}, outputs=("stage1", "stage2"))


def describe(folder: Path, sources: tuple[Source, Source], metrics: Mapping[str, float]) -> None:
    """Write into data/encoder which networks the search uses."""
    content = {
        "format": _FORMAT,
        "stage1": asdict(sources[0]),
        "stage2": asdict(sources[1]),
        "metrics": dict(metrics),
    }
    with atomic_write(folder / DESCRIPTION) as handle:
        handle.write((json.dumps(content, indent=2) + "\n").encode())


def described(folder: Path) -> tuple[Source, Source] | None:
    """What ``describe`` wrote there, None where the encoder is ours.

    Raises DataError when a file is another than the one that was measured, or is of another version.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != _FORMAT:
        raise DataError(f"{path} is of another version: run the encoder stage again")
    found = Source(**content["stage1"]), Source(**content["stage2"])
    for source in found:
        if _source(source.name) != source:
            raise DataError(
                f"{source.file} is not the file that {path} was made with: run the encoder stage again"
            )
    return found


def _source(name: str) -> Source:
    network = published_network(name)
    file = network.file()
    return Source(
        name=name, file=file.name, sha256=sha256_of(file), about=network.about, licence=network.licence
    )
