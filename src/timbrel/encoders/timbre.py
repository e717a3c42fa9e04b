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
_MOST = (
    4.0  # standard deviations: a channel that is nearly constant must not outweigh all others where it is not
)


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
    """What each part is worth in stage 2: factors of its squared distance. Style and cepstrum have a mean square length
    of 1, the contrast's embedding has length 1.

    ``offset``: a constant beside them. Without it a cosine forgets how far a sound is from the average sound, and only
    knows in which direction.
    """

    style: float
    cepstrum: float
    contrast: float
    offset: float


BLEND = Blend(style=1.0, cepstrum=0.5, contrast=2.0, offset=1.0)


def _over_time(maps: Tensor) -> Tensor:
    """Mean and deviation over time: ``[b, channels, bands, frames]`` -> ``[b, 2 channels bands]``."""
    mean = maps.mean(dim=3)
    deviation = torch.sqrt((maps - mean[..., None]).square().mean(dim=3) + 1e-5)
    return torch.cat([mean, deviation], dim=1).flatten(1)


def _of_picture(picture: Tensor) -> Tensor:
    """Of the frames that sound, per band: mean, deviation, mean change to the next; and how many sound, ``[b, 241]``.

    A frame fades out of account within the lowest tenth of the picture's range: what is silent has no colour.
    """
    loud = picture.amax(dim=1, keepdim=True)
    low, high = picture.amin(dim=(1, 2), keepdim=True), loud.amax(dim=2, keepdim=True)
    sounds = (10.0 * (loud - low) / (high - low + 1e-3)).clamp(0.0, 1.0)
    share = sounds / (sounds.sum(dim=2, keepdim=True) + 1e-3)
    mean = (picture * share).sum(dim=2)
    deviation = torch.sqrt(((picture - mean[..., None]).square() * share).sum(dim=2) + 1e-5)
    change = ((picture[..., 1:] - picture[..., :-1]).abs() * share[..., 1:]).sum(dim=2)
    return torch.cat([mean, deviation, change, sounds.mean(dim=2)], dim=1)


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
        described += 3 * filterbank.BANDS + 1
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
        last = _over_time(maps["body5"])
        seen = [statistics(maps), last, _over_time(maps["body3"]), _of_picture(picture)]
        said: Tensor = self.readout(torch.cat(seen, dim=1))
        return functional.normalize(self.head(last), dim=1), said

    def compose(self, stage1: Tensor, said: Tensor) -> Tensor:
        """Stage 2 ``[b, d2]``, of length 1, of what ``describe`` returns."""
        style, cepstrum = said.split(list(self.shape.target_parts), dim=1)
        parts = [
            self.blend.style**0.5 * style,
            self.blend.cepstrum**0.5 * cepstrum,
            self.blend.offset + torch.zeros_like(style[:, :1]),
            self.blend.contrast**0.5 * stage1,
        ]
        return functional.normalize(torch.cat(parts, dim=1), dim=1)

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
