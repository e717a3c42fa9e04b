"""Pitch read with a comb: how loud a note is at each pitch's multiples, and half-way between them.

    embedding [b, frames, 128] ── mean of frames 8 … 64 ──► the codec's decoder ──► dB [b, 512], loudest bin 0
                               ── at 0.5, 1, 1.5 … 8 times each of the 25 pitches ──► [b, 25 x 12]

A head that sees the 128 numbers of a frame has to learn where every pitch's partials lie, from the training instruments
alone. A head that sees the comb has only to learn what a fundamental looks like: what is at the multiples and not
between them. Held-out accuracy was 99.3 % with the numbers, 99.6 % with the comb (three seeds each).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

BINS = 512  # up to 6 kHz: the eighth multiple of the highest pitch lies at 4.2 kHz
MULTIPLES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0)
# After the attack, before a short note has faded.
FIRST_FRAME, END_FRAME = 8, 64
RANGE_DB = 70.0
DECIBEL_SCALE = 20.0
HERTZ_PER_BIN = 24_000 / 2_048


class SpectrumDecoder(nn.Module):
    """The lowest bins of the magnitude codec's decoder: embedding [..., 128] -> dB [..., 512]. It is not trained."""

    mean: Tensor
    latent_mean: Tensor
    latent_scale: Tensor

    def __init__(self, hidden: int, dimensions: int) -> None:
        super().__init__()
        self.direct = nn.Linear(dimensions, BINS, bias=False)
        self.learned = nn.Sequential(
            nn.Linear(dimensions, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, BINS),
        )
        self.register_buffer("mean", torch.zeros(BINS))
        self.register_buffer("latent_mean", torch.zeros(dimensions))
        self.register_buffer("latent_scale", torch.ones(dimensions))
        self.requires_grad_(False)

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a codec's (``timbrel.codec.spectrum_weights``), of which the lowest bins are kept."""
        own = self.state_dict()
        self.load_state_dict({name: weights[name][: len(tensor)] for name, tensor in own.items()})

    def forward(self, embedding: Tensor) -> Tensor:
        latent = embedding * self.latent_scale + self.latent_mean
        spectrum: Tensor = (self.direct(latent) + self.learned(latent)) * DECIBEL_SCALE + self.mean
        return spectrum


class PitchComb(nn.Module):
    """Embeddings [b, frames, 128] -> the comb [b, pitches * 12], about -1.75 … 1.75. Nothing in it is trained."""

    def __init__(self, hidden: int, dimensions: int, pitches: int, lowest_pitch: int) -> None:
        super().__init__()
        self.decoder = SpectrumDecoder(hidden, dimensions)
        hertz = 440.0 * 2.0 ** ((lowest_pitch + torch.arange(pitches, dtype=torch.float64) - 69.0) / 12.0)
        places = hertz[:, None] * torch.tensor(MULTIPLES, dtype=torch.float64) / HERTZ_PER_BIN
        self._bins: list[int] = places.round().long().flatten().tolist()

    @property
    def width(self) -> int:
        return len(self._bins)

    def forward(self, embedding: Tensor) -> Tensor:
        spectrum = self.decoder(embedding[:, FIRST_FRAME:END_FRAME].mean(1))
        relative = (spectrum - spectrum.amax(1, keepdim=True)).clamp_min(-RANGE_DB)
        # A partial may lie between two bins, or a little off its place.
        near = functional.max_pool1d(relative[:, None], 3, 1, 1)[:, 0]
        return (near[:, self._bins] + RANGE_DB / 2.0) / DECIBEL_SCALE
