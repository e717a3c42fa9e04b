"""EnCodec at 24 kHz as a continuous codec: the published architecture, run with weights that the user supplies.

    audio [n] ─► convolutions ÷2 ÷4 ÷5 ÷8 ─► LSTM ─► raw [ceil(n / 320), 128] ─► quantise ─► embedding
    audio     ◄─ convolutions ×8 ×5 ×4 ×2 ◄─ LSTM ◄──────────────────────────────────────── embedding

Défossez, Copet, Synnaeve and Adi, "High Fidelity Neural Audio Compression" (arXiv 2210.13438), section 3. The embedding
is what the decoder hears: the sum of the vectors that the residual codebooks chose (24 kbps = 32 of them), or the
encoder's own output where nothing is quantised. Every layer looks only back in time, so a frame does not depend on what
follows it. The weight normalisation of the training is folded into plain weights when a file is read.

Operations follow the order of the published model: codebook entries are chosen by comparing sums of squares, and a
choice between two almost equal ones must not hang on rounding. Every length is computed by tensor operations, so that
the traced ONNX graphs hold for any length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLE_RATE = 24_000
HOP = 320
DIMENSIONS = 128
# (raw + 25) / 58.5: what pGESAM's public configuration brings the published codec's embeddings to 0 … 1 with.
PUBLISHED_RANGE = (-25.0, 33.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodecConfig:
    """Sizes that the weights depend on (the defaults are the published 24 kHz model's), and what an embedding is.

    ``quantisers``: how many of the codebooks an embedding goes through: 32 at 24 kbps, 16 at 12, …; 0 quantises
    nothing. ``embedding_range``: (low, high) that become 0 and 1 in the embedding; None leaves it as it is.
    """

    filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    codebooks: int = 32
    codebook_size: int = 1_024
    quantisers: int = 32
    embedding_range: tuple[float, float] | None = None


class CausalConv(nn.Conv1d):
    """A convolution that looks only back: ``length`` samples give ceil(length / stride); edges are mirrored."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_mirror(input, self.kernel_size[0] - self.stride[0], self.stride[0]))


def _mirror(x: Tensor, before: int, stride: int) -> Tensor:
    """``x`` [b, c, length] continued to the left by ``before`` samples, to the right to a whole number of strides.

    Both ends are mirrored about their outermost sample. Where the signal is too short for that, zeros stand for what
    is missing, and the right end gets zeros only: so does the published model.
    """
    if not before:
        return x
    length = x.shape[-1]
    head = functional.pad(x[..., : before + 1], (0, before))[..., 1 : before + 1].flip(-1)
    if stride == 1:
        return torch.cat([head, x], dim=-1)
    missing = (stride - length % stride) % stride
    tail = functional.pad(x[..., -stride:], (stride, 0))[..., -stride:-1].flip(-1)[..., :missing]
    return torch.cat([head, x, tail * (length > before)], dim=-1)


class CausalUpsampling(nn.ConvTranspose1d):
    """The transposed convolution of twice the stride, without what it knows of the future: length × stride samples."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 2 * stride, stride)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(input, output_size)[..., : -self.stride[0]]


class ResidualBlock(nn.Module):
    """A bottleneck of half the channels beside a convolution of width 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 2
        self.block = nn.Sequential(
            nn.ELU(), CausalConv(channels, narrow, 3), nn.ELU(), CausalConv(narrow, channels, 1)
        )
        self.shortcut = CausalConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class ResidualLSTM(nn.Module):
    """Two layers over time, added to their input: [b, c, time] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(2, 0, 1)
        return (self.lstm(steps)[0] + steps).permute(1, 2, 0)


def _encoder(config: EncodecConfig) -> nn.Sequential:
    channels = config.filters
    layers: list[nn.Module] = [CausalConv(1, channels, 7)]
    for ratio in reversed(config.ratios):
        down = CausalConv(channels, 2 * channels, 2 * ratio, ratio)
        layers += [ResidualBlock(channels), nn.ELU(), down]
        channels *= 2
    layers += [ResidualLSTM(channels), nn.ELU(), CausalConv(channels, DIMENSIONS, 7)]
    return nn.Sequential(*layers)


def _decoder(config: EncodecConfig) -> nn.Sequential:
    channels = config.filters * 2 ** len(config.ratios)
    layers: list[nn.Module] = [CausalConv(DIMENSIONS, channels, 7), ResidualLSTM(channels)]
    for ratio in config.ratios:
        layers += [nn.ELU(), CausalUpsampling(channels, channels // 2, ratio), ResidualBlock(channels // 2)]
        channels //= 2
    layers += [nn.ELU(), CausalConv(channels, 1, 7)]
    return nn.Sequential(*layers)


class Encodec(nn.Module):
    """24 kHz audio [b, n] <-> embedding [b, ceil(n / 320), 128] at 75 frames a second."""

    codebooks: Tensor

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)
        self.register_buffer("codebooks", torch.zeros(config.codebooks, config.codebook_size, DIMENSIONS))

    def encode(self, audio: Tensor) -> Tensor:
        """float32 [b, n >= 1] at 24 kHz -> embedding [b, ceil(n / 320), 128], as the configuration describes it."""
        raw = self.encoder(audio[:, None]).transpose(1, 2)
        if self.config.quantisers:
            raw = self.quantise(raw)
        if self.config.embedding_range is None:
            return raw
        low, high = self.config.embedding_range
        return (raw - low) / (high - low)

    def decode(self, embedding: Tensor) -> Tensor:
        """Embedding [b, frames >= 1, 128] -> float32 [b, frames * 320] at 24 kHz, not limited to -1 … 1."""
        if self.config.embedding_range is not None:
            low, high = self.config.embedding_range
            embedding = embedding * (high - low) + low
        return self.decoder(embedding.transpose(1, 2))[:, 0]

    def quantise(self, raw: Tensor) -> Tensor:
        """Vectors [b, t, 128] -> the sum of one entry of each codebook, each the nearest to what is left so far."""
        rest = raw
        total = torch.zeros_like(raw)
        for i in range(self.config.quantisers):
            book = self.codebooks[i]
            flat = rest.reshape(-1, DIMENSIONS)
            entries = book.t()
            # The first term changes nothing but the rounding, in which the published model chooses.
            distance = (
                flat.square().sum(1, keepdim=True)
                - 2 * flat @ entries
                + entries.square().sum(0, keepdim=True)
            )
            chosen = functional.embedding(distance.argmin(1), book).view_as(rest)
            rest = rest - chosen
            total = total + chosen
        return total
