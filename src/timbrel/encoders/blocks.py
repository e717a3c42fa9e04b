"""The style of any network's blocks: which blocks, and what is kept of them.

Mean and deviation of each channel (``style.statistics``) leave out where things are; Gram matrices, which keep what
channels do together, are the alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from timbrel.encoders.style import statistics
from timbrel.errors import ConfigurationError


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


KINDS: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]] = {"moments": statistics, "gram": gram}


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
