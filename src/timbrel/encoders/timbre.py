"""The timbre network: a small residual convolution net over a log-mel picture, two vectors from one pass.

    audio [b, 72000] ─► power mel [b, 80, 120] ─► log ─► stem ─► body1 … body5
                                                          │        │        ├──► head ──► stage1 [b, d1] ─────┐
                                                          └────────┴────────┴──► readout ─► style, cepstrum ──┴─► stage2

Stage 1 tells instruments apart. Stage 2 orders by how alike sounds are: mostly by style and cepstrum, which the readout
says of the sound without its noise, room and cut end, and a little by stage 1. ``Blend`` has the proportions.

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
from timbrel.encoders.style import statistics

_HIDDEN = 256  # width of the head's hidden layer
_MOST = 4.0  # standard deviations: a channel that is nearly constant must not outweigh all others where it is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``channels``: of the stem and the three resolutions after it. ``embedding_size``: d1.

    ``readout``: its hidden width. ``target_parts``: numbers of the style and of the cepstrum that it says.
    """

    channels: tuple[int, int, int, int]
    embedding_size: int
    readout: int
    target_parts: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """What each part is worth in stage 2: shares of the squared cosine distance, which add up to 1.

    ``offset``: a constant beside the style, in units of an average style's length. Without it a cosine forgets how far
    a sound is from the average sound, and only knows in which direction.
    """

    style: float
    cepstrum: float
    contrast: float
    offset: float


BLEND = Blend(style=0.6, cepstrum=0.1, contrast=0.3, offset=1.0)


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
    """Log-mel pictures ``[b, 80, 120]`` to both vectors."""

    position: Tensor

    def __init__(self, shape: Shape, blend: Blend = BLEND) -> None:
        super().__init__()
        self.shape = shape
        self.blend = blend
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
        described = 2 * (stem + low + 2 * middle + 2 * high) + 2 * high * bands
        said = nn.Linear(shape.readout, sum(shape.target_parts))
        nn.init.zeros_(said.weight)  # at first it says: the average sound
        self.readout = nn.Sequential(
            nn.BatchNorm1d(described, affine=False),
            nn.Hardtanh(-_MOST, _MOST),
            nn.Linear(described, shape.readout, bias=False),
            nn.BatchNorm1d(shape.readout),
            nn.ReLU(),
            said,
        )
        position = torch.linspace(-1.0, 1.0, filterbank.BANDS).reshape(1, 1, -1, 1)
        self.register_buffer("position", position, persistent=False)

    @property
    def stage2_size(self) -> int:
        """d2, the length of the stage-2 vector."""
        return sum(self.shape.target_parts) + 1 + self.shape.embedding_size

    def blocks(self, picture: Tensor) -> dict[str, Tensor]:
        """Feature maps ``[b, channels, bands, frames]`` of every block, by name, in order."""
        values = picture.unsqueeze(1)
        values = torch.cat([values, torch.zeros_like(values) + self.position], dim=1)
        maps = {"stem": self.stem(values.contiguous(memory_format=torch.channels_last))}
        values = maps["stem"]
        for name, block in self.body.items():
            values = maps[name] = block(values)
        return maps

    def describe(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns stage 1 ``[b, d1]``, of length 1, and what the readout says, ``[b, style + cepstrum]``."""
        maps = self.blocks(picture)
        last = maps["body5"]
        mean = last.mean(dim=3)
        deviation = torch.sqrt((last - mean[..., None]).square().mean(dim=3) + 1e-5)
        over_time = torch.cat([mean, deviation], dim=1).flatten(1)
        said: Tensor = self.readout(torch.cat([statistics(maps), over_time], dim=1))
        return functional.normalize(self.head(over_time), dim=1), said

    def compose(self, stage1: Tensor, said: Tensor) -> Tensor:
        """Stage 2 ``[b, d2]``, of length 1, of what ``describe`` returns."""
        style, cepstrum = said.split(list(self.shape.target_parts), dim=1)
        offset = self.blend.offset + torch.zeros_like(style[:, :1])
        parts = [
            (self.blend.style, functional.normalize(torch.cat([style, offset], dim=1), dim=1)),
            (self.blend.cepstrum, functional.normalize(cepstrum, dim=1)),
            (self.blend.contrast, stage1),
        ]
        return functional.normalize(torch.cat([worth**0.5 * part for worth, part in parts], dim=1), dim=1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns stage 1 ``[b, d1]`` and stage 2 ``[b, d2]``, both of length 1."""
        stage1, said = self.describe(picture)
        return stage1, self.compose(stage1, said)


class TimbreEncoder(nn.Module):
    """Clips ``[b, 72000]`` as ``frontend.clip`` makes them to stage 1 ``[b, d1]`` and stage 2 ``[b, d2]``."""

    def __init__(self, network: TimbreNetwork) -> None:
        super().__init__()
        self.mel = PowerMel()
        self.network = network

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        stage1, stage2 = self.network(log_mel(self.mel(audio)))
        return stage1, stage2


def build(shape: Shape, blend: Blend = BLEND) -> TimbreNetwork:
    """A network with fresh weights, laid out for the convolutions of a CPU."""
    return TimbreNetwork(shape, blend).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
