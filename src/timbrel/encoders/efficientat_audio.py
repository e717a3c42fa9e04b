"""EfficientAT from samples: its mel picture in the same graph as its network, so that any client can ask with audio.

The picture's numbers are those of ``efficientat_mel``, in operations that every ONNX runtime has: Gather, Add, MatMul.
A frame's window is symmetric about the middle of its 800 samples, and a power spectrum does not depend on where time
begins. With time counted from that middle, the mirrored samples ``a`` and ``b`` share a row of each matrix:

    Re X[k] = sum_{n=0..399} w[n] (a[n] + b[n]) cos(2 pi k (n - 399.5) / 1024)
    Im X[k] = sum_{n=0..399} w[n] (b[n] - a[n]) sin(2 pi k (n - 399.5) / 1024)

Resampling stays outside: it is no part of the published model, and so the graph hears what the published one heard.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders import efficientat_mel as mel
from timbrel.encoders.blocks import style_of
from timbrel.encoders.efficientat import EfficientAt
from timbrel.encoders.graph import Free, Graph
from timbrel.encoders.interface import Style

# Samples: one more than the ends are mirrored by, and one that the pre-emphasis takes.
SHORTEST = mel.WINDOW // 2 + 2
_FLOOR = 1e-5


class Picture(nn.Module):
    """Samples [b, n] at 32 kHz to mel pictures [b, 1, 128, frames]; the numbers of ``efficientat_mel.picture``."""

    cosine: Tensor
    sine: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        bands = mel.filters()
        heard = int(np.flatnonzero(bands.any(axis=1))[-1]) + 1  # bins above the highest band are not computed
        half = np.arange(mel.WINDOW // 2)
        angle = 2.0 * np.pi * (half[:, None] - (mel.WINDOW - 1) / 2) * np.arange(heard) / mel.FFT_SIZE
        shape = np.hanning(mel.WINDOW)[: mel.WINDOW // 2, None]
        self.register_buffer("cosine", _float32(shape * np.cos(angle)), persistent=False)
        self.register_buffer("sine", _float32(shape * np.sin(angle)), persistent=False)
        self.register_buffer("bands", _float32(bands[:heard]), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        emphasised = audio[:, 1:] - mel.PRE_EMPHASIS * audio[:, :-1]
        # Frames are 1,024 long, of which the window leaves 800 in their middle.
        edge = mel.WINDOW // 2
        padded = functional.pad(emphasised[:, None], (edge, edge), mode="reflect")[:, 0]
        frames = 1 + emphasised.shape[1] // mel.HOP
        starts = torch.arange(frames, device=audio.device)[:, None] * mel.HOP
        half = torch.arange(mel.WINDOW // 2, device=audio.device)[None]
        early, late = padded[:, starts + half], padded[:, starts + (mel.WINDOW - 1) - half]
        real = torch.matmul(early + late, self.cosine)
        imaginary = torch.matmul(late - early, self.sine)
        powers = torch.matmul(real * real + imaginary * imaginary, self.bands)
        return ((torch.log(powers + _FLOOR) + 4.5) / 5.0).transpose(1, 2)[:, None]


class FromAudio(nn.Module):
    """Samples [b, n] at 32 kHz, n >= 402, to embedding [b, d], logits [b, 527] and style [b, d2]; one pass for all."""

    def __init__(self, network: EfficientAt, style: Style) -> None:
        super().__init__()
        self.picture = Picture()
        self.network = network
        self._style = style

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.network.blocks(self.picture(audio))
        *_, last = maps.values()
        return (
            last.mean(dim=(2, 3)),
            self.network.classifier(last),
            style_of(maps, self._style.blocks, self._style.kind),
        )


def graph(network: EfficientAt, style: Style) -> Graph:
    """``audio`` to ``embedding``, ``logits`` and ``style``; batch and length are free."""
    return Graph(
        FromAudio(network, style).eval(),
        inputs={"audio": (Free("b"), Free("samples", least=SHORTEST, traced=32_000))},
        outputs=("embedding", "logits", "style"),
    )


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
