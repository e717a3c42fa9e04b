"""Files in the format of published weights, with networks that nobody trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from timbrel.encoders.efficientat import WIDTHS, EfficientAt
from timbrel.encoders.efficientat_audio import Picture


def write_random_efficientat(path: Path, width: str) -> None:
    """A file like a published one. Its normalisations know some sounds, so that what comes out depends on what goes in.

    Without that, fifteen blocks of fresh weights give nearly the same for everything.
    """
    torch.manual_seed(0)
    network = EfficientAt(WIDTHS[width]).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean of all batches, here of one
    with torch.no_grad():
        sounds = torch.randn(8, 16_000) * torch.logspace(-3, 0, 8)[:, None]
        network(Picture()(sounds.cumsum(dim=1) * 0.1))
    torch.save(network.state_dict(), path)
