"""The timbre encoder: two networks over a clip, two vectors.

    clip [b, 72000] ─┬► power mel [b, 80, 120] ─► log ─► stem ─► body1 … body5 ─► head ─► stage1 [b, d1]
                     └► StyleNetwork ─► stage2 [b, d2]

Stage 1 tells instruments apart, by contrast. Stage 2 says how alike sounds are.

The stem looks at 7 frames (about 0.2 s) and keeps every fourth frame: the shape of an attack is in its
channels. A second input channel carries each band's position, so that a channel may mean "bright" and not
only "rising". Plain 3 x 3 convolutions: they become matrix products, which two CPU cores are good at, unlike
depthwise ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import filterbank
from timbrel.encoders.mel import PowerMel, log_mel
from timbrel.encoders.style_network import StyleNetwork

_HIDDEN = 256  # width of the head's hidden layer
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``channels``: of the stem and the three resolutions after it. ``embedding_size``: d1."""

    channels: tuple[int, int, int, int]
    embedding_size: int


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; ``stride`` 2 halves bands and frames."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = functional.relu(self.first_norm(self.first(maps)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(maps))


class TimbreNetwork(nn.Module):
    """Log-mel pictures ``[b, 80, 120]`` to stage 1 ``[b, d1]``, of length 1."""

    position: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        stem, low, middle, high = shape.channels
        self.stem = nn.Sequential(
            nn.Conv2d(2, stem, (5, 7), (2, 4), (2, 3), bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.body = nn.ModuleDict(
            {
                "body1": Residual(stem, low, 2),
                "body2": Residual(low, middle, 2),
                "body3": Residual(middle, middle, 1),
                "body4": Residual(middle, high, 2),
                "body5": Residual(high, high, 1),
            }
        )
        bands = filterbank.BANDS // 16
        self.head = nn.Sequential(
            nn.Linear(2 * high * bands, _HIDDEN, bias=False),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, shape.embedding_size),
        )
        position = torch.linspace(-1.0, 1.0, filterbank.BANDS).reshape(1, 1, -1, 1)
        self.register_buffer("position", position, persistent=False)

    def blocks(self, picture: Tensor) -> dict[str, Tensor]:
        """Feature maps ``[b, channels, bands, frames]`` of every block, by name, in order."""
        values = picture.unsqueeze(1)
        values = torch.cat([values, torch.zeros_like(values) + self.position], dim=1)
        maps = {"stem": self.stem(values.contiguous(memory_format=torch.channels_last))}
        values = maps["stem"]
        for name, block in self.body.items():
            values = maps[name] = block(values)
        return maps

    def describe(self, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns stage 1 ``[b, d1]`` and all blocks' maps."""
        maps = self.blocks(picture)
        return functional.normalize(self.head(over_time(maps["body5"])), dim=1), maps

    def forward(self, picture: Tensor) -> Tensor:
        return self.describe(picture)[0]


def over_time(maps: Tensor) -> Tensor:
    """Mean and deviation over time: ``[b, channels, bands, frames]`` -> ``[b, 2 channels bands]``."""
    mean = maps.mean(dim=3)
    deviation = torch.sqrt((maps - mean[..., None]).square().mean(dim=3) + _EPSILON)
    return torch.cat([mean, deviation], dim=1).flatten(1)


class TimbreEncoder(nn.Module):
    """Clips ``[b, 72000]`` as ``frontend.clip`` makes them to stage 1 ``[b, d1]`` and stage 2 ``[b, d2]``.

    Both have length 1. Without a style network stage 2 is stage 1.
    """

    def __init__(self, network: TimbreNetwork, style: StyleNetwork | None = None) -> None:
        super().__init__()
        self.mel = PowerMel()
        self.network = network
        self.style = style

    @property
    def stage2_size(self) -> int:
        """d2, the length of the stage-2 vector."""
        return self.network.shape.embedding_size if self.style is None else self.style.size

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        stage1: Tensor = self.network(log_mel(self.mel(audio)))
        if self.style is None:
            return stage1, stage1 + 0.0  # an output of its own
        return stage1, functional.normalize(self.style(audio), dim=1)


def build(shape: Shape) -> TimbreNetwork:
    """A network with fresh weights, laid out for the convolutions of a CPU."""
    return TimbreNetwork(shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
