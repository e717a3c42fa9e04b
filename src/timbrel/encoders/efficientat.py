"""EfficientAT (Schmid, Koutini and Widmer 2023): MobileNetV3-large on mel pictures, trained on AudioSet.

    picture [b, 1, 128, frames] ─► 3 x 3 convolution ─► 15 inverted residuals ─► 1 x 1 convolution ─► mean ─► embedding
                                                                                                         └─► 527 logits

Widths of 0.4 to 4.0 scale every channel count; 0.4 ("mn04") is 0.98 M parameters. Modules are named so that the
published files load strictly. Those are MIT-licensed and are not part of this repository.

The block table is that of MobileNetV3-large (Howard et al. 2019), but with squeeze-and-excitation over channels as
linear layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.encoders.style import statistics, within
from timbrel.errors import DataError

CLASSES = 527
WIDTHS = {"mn04": 0.4, "mn05": 0.5, "mn10": 1.0, "mn20": 2.0, "mn30": 3.0, "mn40": 4.0}
_EPSILON, _MOMENTUM = 1e-3, 0.01
_DROPOUT = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the block table, at width 1."""

    kernel: int
    expanded: int
    outputs: int
    excitation: bool
    hard_swish: bool
    stride: int


ROWS = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
_FIRST, _LAST = 16, 1_280


def divisible(channels: float) -> int:
    """The multiple of 8 nearest to ``channels``, at least 8 and never more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class _Excitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, maps: Tensor, frames: Tensor | None = None) -> Tensor:
        squeezed = maps.mean(dim=(2, 3)) if frames is None else within(maps, frames).mean(maps)
        scale = torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))
        return maps * scale[:, :, None, None]


class _Excitations(nn.Module):
    """The published modules can run several excitations side by side; the published weights hold one, over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_Excitation(channels)])

    def forward(self, maps: Tensor, frames: Tensor | None = None) -> Tensor:
        excited: Tensor = self.conc_se_layers[0](maps, frames)
        return excited


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPSILON, momentum=_MOMENTUM),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, row: Row, width: float) -> None:
        super().__init__()
        expanded, outputs = divisible(row.expanded * width), divisible(row.outputs * width)
        activation: type[nn.Module] = nn.Hardswish if row.hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(_convolution(inputs, expanded, 1, activation=activation))
        layers.append(
            _convolution(
                expanded, expanded, row.kernel, stride=row.stride, groups=expanded, activation=activation
            )
        )
        if row.excitation:
            layers.append(_Excitations(expanded))
        layers.append(_convolution(expanded, outputs, 1, activation=None))
        self.block = nn.Sequential(*layers)
        self._deep = int(expanded != inputs)  # place of the one convolution that sees neighbours
        self.stride = row.stride
        self._shortcut = row.stride == 1 and inputs == outputs

    def forward(self, maps: Tensor, frames: Tensor | None = None) -> Tensor:
        inner: Tensor = maps
        for place, layer in enumerate(self.block):
            if isinstance(layer, _Excitations):
                inner = layer(inner, frames)
            elif place == self._deep and frames is not None:
                inner = layer(within(inner, frames).only(inner))
                frames = after(frames, self.stride)
            else:
                inner = layer(inner)
        return inner + maps if self._shortcut else inner


def after(frames: Tensor, stride: int) -> Tensor:
    """How many frames are left of so many by a convolution of a ``stride``, its edges padded."""
    return torch.div(frames + stride - 1, stride, rounding_mode="floor")


class Features(nn.Sequential):
    """The 17 blocks of a width: mel pictures [b, 1, 128, frames] to maps.

    A batch may hold pictures of different lengths: with ``frames`` [b], how many of each count, everything is as if
    each had been cut there. What lies behind is kept from whatever looks at neighbours or averages.
    """

    def __init__(self, width: float) -> None:
        before = divisible(_FIRST * width)
        layers: list[nn.Module] = [_convolution(1, before, 3, stride=2, activation=nn.Hardswish)]
        for row in ROWS:
            layers.append(_InvertedResidual(before, row, width))
            before = divisible(row.outputs * width)
        layers.append(_convolution(before, 6 * before, 1, activation=nn.Hardswish))
        super().__init__(*layers)
        self.size = 6 * before
        self.channels = (
            divisible(_FIRST * width), *(divisible(row.outputs * width) for row in ROWS), self.size
        )  # fmt: skip

    def step(self, number: int, maps: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Maps of block ``number`` after the one before, and how many of their frames count."""
        block = self[number]
        if frames is None:
            return block(maps), None
        if isinstance(block, _InvertedResidual):
            return block(maps, frames), after(frames, block.stride)
        if number == 0:
            return block(within(maps, frames).only(maps)), after(frames, 2)
        return block(maps), frames

    def blocks(
        self, picture: Tensor, frames: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """Feature maps [b, channels, bands, frames] of all blocks, by name, in order; how many frames count."""
        maps: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for number in range(len(self)):
            picture, frames = self.step(number, picture, frames)
            maps[f"block{number}"] = picture
            if frames is not None:
                counts[f"block{number}"] = frames
        return maps, counts or None


class EfficientAt(nn.Module):
    """Mel pictures [b, 1, 128, frames] (``efficientat_mel``) to an embedding and AudioSet logits."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width
        self.features = Features(width)
        self.embedding_size = self.features.size
        hidden = divisible(_LAST * width)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(self.embedding_size, hidden),
            nn.Hardswish(),
            nn.Dropout(_DROPOUT),
            nn.Linear(hidden, CLASSES),
        )

    def blocks(self, picture: Tensor) -> dict[str, Tensor]:
        """Feature maps [b, channels, bands, frames] of the 17 blocks, by name, in order."""
        return self.features.blocks(picture)[0]

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the embedding [b, d], the mean of the last maps, and the logits [b, 527]."""
        maps = self.features(picture)
        return maps.mean(dim=(2, 3)), self.classifier(maps)


def read_published(path: Path) -> EfficientAt:
    """The network of a published ``.pt`` file, in evaluation mode; its width is told by its first weights.

    ``published.find("efficientat-mn04")`` is such a file, checked. Nothing is unpickled but tensors. Raises DataError
    when the file is of another network.
    """
    try:
        state: Mapping[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
        hidden = len(state["classifier.2.weight"])
        width = next(width for width in WIDTHS.values() if divisible(_LAST * width) == hidden)
        network = EfficientAt(width)
        network.load_state_dict(state, strict=True)
    except (
        UnpicklingError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        StopIteration,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else "no such width"
        raise DataError(f"{path} holds no EfficientAT network that is known here ({reason})") from error
    return network.eval()


@torch.inference_mode()
def vectors(network: EfficientAt, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [b, 1, 128, frames] to embeddings [b, d] and the style of all 17 blocks [b, 2 * channels], float32.

    One pass for both.
    """
    maps = network.blocks(torch.from_numpy(pictures))
    last = maps["block16"].mean(dim=(2, 3))
    return last.numpy(), statistics(maps).numpy()
