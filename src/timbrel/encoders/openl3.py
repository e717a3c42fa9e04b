"""OpenL3's audio network (Cramer, Wu, Salamon and Bello 2019), from its published Keras weights, without Keras.

    picture [b, 1, bands, 199] ─► normalised ─► 2 convolutions ─► half ─► 2 ─► half ─► 2 ─► half ─► 2 ─► [b, 512, ·, 24]
                                     maxima: of everywhere, 512 numbers; of 4 bands x 3 times, 6,144 numbers ◄─┘

A sound's embedding and style are means over its windows (``openl3_mel``). The weights, CC BY 4.0, are not part of this
repository.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.encoders.blocks import style_of
from timbrel.encoders.graph import Free, Graph
from timbrel.encoders.interface import Style
from timbrel.encoders.openl3_mel import FRAMES
from timbrel.errors import ConfigurationError, DataError

SIZES = (512, 6_144)
CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
_EPSILON = 1e-3
_GZIP = b"\x1f\x8b"


class OpenL3(nn.Module):
    """Pictures [b, 1, bands, 199] to an embedding; ``bands`` is 128 or 256, ``size`` 512 or 6,144."""

    def __init__(self, bands: int, size: int) -> None:
        super().__init__()
        if size not in SIZES:
            raise ConfigurationError(f"OpenL3 has no embedding of {size}: ask for one of {SIZES}")
        self.bands, self.size = bands, size
        inputs = (1, *CHANNELS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(inputs, CHANNELS, strict=True)
        )
        # Of what each convolution is given: the picture itself, then maps before their rectifier.
        self.normalisations = nn.ModuleList(nn.BatchNorm2d(before, eps=_EPSILON) for before in inputs)

    def blocks(self, picture: Tensor) -> dict[str, Tensor]:
        """Feature maps [b, channels, bands, frames] of the eight convolutions, by name, in order: rectified but for
        the last, which the embedding is read from."""
        maps: dict[str, Tensor] = {}
        values = self.normalisations[0](picture)
        for number, convolution in enumerate(self.convolutions, start=1):
            values = convolution(values)
            if number < len(self.convolutions):
                values = functional.relu(self.normalisations[number](values))
            maps[f"convolution{number}"] = values
            if number in (2, 4, 6):
                values = functional.max_pool2d(values, 2)
        return maps

    def pooled(self, last: Tensor) -> Tensor:
        """The last maps to the embedding [b, ``size``]."""
        if self.size == SIZES[0]:
            return last.amax(dim=(2, 3))
        # Keras has channels last.
        return functional.max_pool2d(last, (self.bands // 32, 8)).permute(0, 2, 3, 1).flatten(1)

    def forward(self, picture: Tensor) -> Tensor:
        return self.pooled(self.blocks(picture)[f"convolution{len(CHANNELS)}"])


class OfWindows(nn.Module):
    """Pictures [b, windows, bands, 199] to embedding [b, d] and style [b, d2], means over windows; one pass for both.

    Statistics are of one window at a time: onnxruntime adds up a longer map with a visible error.
    """

    def __init__(self, network: OpenL3, style: Style) -> None:
        super().__init__()
        self.network = network
        self._style = style

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        count = pictures.shape[1]
        maps = self.network.blocks(pictures.flatten(0, 1)[:, None])
        embedding = self.network.pooled(maps[f"convolution{len(CHANNELS)}"])
        style = style_of(maps, self._style.blocks, self._style.kind)
        return embedding.unflatten(0, (-1, count)).mean(dim=1), style.unflatten(0, (-1, count)).mean(dim=1)


def graph(network: OpenL3, style: Style) -> Graph:
    """``pictures`` to ``embedding`` and ``style``; batch and number of windows are free."""
    return Graph(
        OfWindows(network, style).eval(),
        inputs={"pictures": (Free("b"), Free("windows", traced=3), network.bands, FRAMES)},
        outputs=("embedding", "style"),
    )


def read_published(path: Path, size: int = SIZES[0]) -> OpenL3:
    """The network of ``openl3_audio_mel256_music.h5`` or a file like it, packed by gzip or not, in evaluation mode.

    The files for 128 bands, for 256 and for linear spectra differ in nothing but their weights, so the name must tell:
    it has ``mel128`` or ``mel256`` in it. Raises DataError when it has not, and when the file is of another network.
    """
    bands = re.search(r"_mel(128|256)_", path.name)
    if not bands:
        raise DataError(f"{path}: the name of an OpenL3 file says _mel128_ or _mel256_; give it its own name")
    network = OpenL3(int(bands[1]), size)
    state: dict[str, Tensor] = {}
    counts = {"convolutions": 0, "normalisations": 0}
    names = {
        "convolutions": ("weight", "bias"),
        "normalisations": ("weight", "bias", "running_mean", "running_var"),
    }
    try:
        for layer in _layers(path):
            kind = "convolutions" if len(layer) == 2 else "normalisations"
            for name, values in zip(names[kind], layer, strict=True):
                # Keras has a convolution's kernel as rows, columns, inputs, outputs.
                moved = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
                state[f"{kind}.{counts[kind]}.{name}"] = torch.from_numpy(np.ascontiguousarray(moved))
            counts[kind] += 1
        absent, foreign = network.load_state_dict(state, strict=False)
        # Keras does not count batches.
        if foreign or any(not name.endswith("num_batches_tracked") for name in absent):
            raise ValueError(
                f"{counts['convolutions']} convolutions, {counts['normalisations']} normalisations"
            )
    except (OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} holds no OpenL3 audio network ({reason})") from error
    return network.eval()


def _layers(path: Path) -> Iterator[list[np.ndarray]]:
    """The weights of each layer that has any, in the network's order; float32."""
    try:
        import h5py
    except ImportError as error:
        raise DataError("OpenL3 needs h5py: scripts/setup serve pipeline encoders") from error
    content = path.read_bytes()
    if content.startswith(_GZIP):
        content = gzip.decompress(content)
    with h5py.File(io.BytesIO(content), "r") as file:
        for layer in file.attrs["layer_names"]:
            group = file[layer]
            # Older files also hold what the front end is made of, which is computed here.
            if "spectrogram" in str(layer) or not len(group.attrs["weight_names"]):
                continue
            yield [np.asarray(group[name], dtype=np.float32) for name in group.attrs["weight_names"]]
