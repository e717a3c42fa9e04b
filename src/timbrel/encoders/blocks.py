"""The style of any network's blocks: which blocks, and what is kept of them.

Mean and deviation of each channel leave out where things are; Gram matrices, which keep what
channels do together, are the alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from timbrel.errors import ConfigurationError

_EPSILON = 1e-5  # as in ``style.statistics``


def moments(maps: Mapping[str, Tensor]) -> Tensor:
    """Mean and population standard deviation of each channel, as ``style.statistics`` has them: ``[b, d]``.

    Averaged over frames first and over bands then: onnxruntime adds up one number after the other, and a single sum
    over a large map's hundred thousands of positions is off by some 1e-4.
    """
    parts: list[Tensor] = []
    for values in maps.values():
        mean = values.mean(dim=3).mean(dim=2)
        variance = (values - mean[:, :, None, None]).square().mean(dim=3).mean(dim=2)
        parts += [mean, torch.sqrt(variance + _EPSILON)]
    return torch.cat(parts, dim=1)


def gram(maps: Mapping[str, Tensor]) -> Tensor:
    """Gram matrix of each block's channels over frequency and time (Gatys, Ecker and Bethge 2016).

    ``maps``: feature maps ``[b, channels, bands, frames]`` by block. With ``p`` positions (bands x frames) and channels
    as rows of F, the matrix is F F^T / p; it is symmetric, so its upper triangle is all of it. Returns ``[b, d]``: the
    triangles of all blocks, row by row; ``d`` is the sum of channels (channels + 1) / 2.
    """
    parts: list[Tensor] = []
    for values in maps.values():
        rows = values.flatten(2)
        products = torch.matmul(rows, rows.transpose(1, 2)) / rows.shape[2]
        upper = torch.triu_indices(rows.shape[1], rows.shape[1], device=values.device)
        parts.append(products[:, upper[0], upper[1]])
    return torch.cat(parts, dim=1)


KINDS: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]] = {"moments": moments, "gram": gram}


def style_of(
    maps: Mapping[str, Tensor], blocks: Sequence[str] | None = None, kind: str = "moments"
) -> Tensor:
    """The style ``[b, d]`` of the named ``blocks`` (None: of all), by ``moments`` or ``gram``.

    Raises ConfigurationError when there is no such block or kind.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"there is no style {kind!r}: there are {', '.join(KINDS)}")
    names = list(maps) if blocks is None else list(blocks)
    if missing := [name for name in names if name not in maps]:
        raise ConfigurationError(f"there is no block {missing[0]!r}: there are {', '.join(maps)}")
    return KINDS[kind]({name: maps[name] for name in names})
