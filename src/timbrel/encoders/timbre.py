"""The timbre network: a small residual convolution net over a log-mel picture, two vectors from one pass.

    audio [b, 72000] ─► power mel [b, 80, 120] ─► log ─┬► stem ─► body1 … body5 ─► head ──► stage1 [b, d1] ──┐
                                                       │    └────────┴──┬──┴─────► readout ─► style ────────┤
                                                       ├────────────────┘                                   ├─► stage2
                                                       └──────────────────────────────────► cepstrum ───────┘

Stage 1 tells instruments apart. Stage 2 orders by how alike sounds are, by style, cepstrum and stage 1 together;
``Blend`` has the proportions.

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
from timbrel.encoders.readout import COEFFICIENTS, Cepstrum, Readout, everything, over_time

_HIDDEN = 256  # width of the head's hidden layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """``channels``: of the stem and the three resolutions after it. ``embedding_size``: d1.

    ``style``: how many numbers its readout gives.
    """

    channels: tuple[int, int, int, int]
    embedding_size: int
    style: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """What each part is worth in stage 2: factors of its squared distance. Style and cepstrum have a mean square length
    of 1, the contrast's embedding has length 1.

    ``offset``: a constant beside them. Without it a cosine forgets how far a sound is from the average sound, and only
    knows in which direction.
    """

    style: float
    cepstrum: float
    contrast: float
    offset: float


BLEND = Blend(style=1.0, cepstrum=0.1, contrast=2.0, offset=1.0)


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
        described = 2 * (stem + low + 2 * middle + 2 * high) + 2 * (middle * 2 * bands + high * bands)
        self.readout = Readout(described + 3 * filterbank.BANDS + 1, shape.style)
        self.cepstrum = Cepstrum()
        position = torch.linspace(-1.0, 1.0, filterbank.BANDS).reshape(1, 1, -1, 1)
        self.register_buffer("position", position, persistent=False)

    @property
    def stage2_size(self) -> int:
        """d2, the length of the stage-2 vector."""
        return self.shape.style + 2 * COEFFICIENTS + 1 + self.shape.embedding_size

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
        """Returns stage 1 ``[b, d1]``, of length 1, and the statistics that the readout reads, ``[b, n]``."""
        maps = self.blocks(picture)
        last = over_time(maps["body5"])
        return functional.normalize(self.head(last), dim=1), everything(maps, last, picture)

    def compose(self, stage1: Tensor, style: Tensor, cepstrum: Tensor) -> Tensor:
        """Stage 2 ``[b, d2]``, of length 1, of its parts."""
        parts = [
            self.blend.style**0.5 * style,
            self.blend.cepstrum**0.5 * cepstrum,
            self.blend.offset + torch.zeros_like(style[:, :1]),
            self.blend.contrast**0.5 * stage1,
        ]
        return functional.normalize(torch.cat(parts, dim=1), dim=1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns stage 1 ``[b, d1]`` and stage 2 ``[b, d2]``, both of length 1."""
        stage1, described = self.describe(picture)
        return stage1, self.compose(stage1, self.readout(described), self.cepstrum(picture))


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
