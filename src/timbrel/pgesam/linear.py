"""Linear layers whose training runs through oneDNN on a CPU.

torch gives float32 matrix products on x86 to MKL, which keeps to AVX2 on a processor that is not Intel's. oneDNN, which
torch carries for convolutions, uses what the processor has: 220 GFLOP/s against 100 on one core with AVX-512, forward
and both products of the backward pass alike. Same products, another order of summation.

Without gradients (evaluation), and in an ONNX export, these are torch's own layers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Multiplications below which calling oneDNN costs more than it saves.
SMALLEST_PRODUCT = 500_000


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [n, i] · weight [o, i] transposed + bias [o]; either may lie transposed in memory."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if of_x else None,
            _product(gradient.t(), x.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch.nn.functional.linear: x [..., i], weight [o, i], bias [o] → [..., o]."""
    if (
        torch.is_grad_enabled()
        and not torch.onnx.is_in_onnx_export()
        and x.device.type == "cpu"
        and x.dtype is torch.float32
        and x.numel() * len(weight) >= SMALLEST_PRODUCT
        and torch.backends.mkldnn.is_available()
    ):
        # Rows that are cut out of wider ones take oneDNN a thousand times as long.
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous()
        product: Tensor = _OneDnnLinear.apply(rows, weight, bias)
        return product.view(*x.shape[:-1], len(weight))
    return functional.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear through ``linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., i] → [..., o]."""
        return linear(input, self.weight, self.bias)


class Doubling(nn.ConvTranspose1d):
    """Twice as many frames: a transposed convolution of stride 2 over [b, t, before], channels last → [b, 2t, after].

    As one matrix product. Frame 2m of the answer is made of frames m-1, m and m+1, frame 2m+1 of m and m+1: so every
    three neighbours are multiplied by a matrix that writes two frames at once, a sixth of it zeros.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 5, stride=2, padding=2, output_padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[b, t, before] → [b, 2t, after]."""
        padded = functional.pad(x, (0, 0, 1, 1))
        three = torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=2)
        # weight[:, :, k] leads frame m to frame 2m + k - 2: for the frames m-1, m, m+1 that is k = 4, 2, 0 of an even
        # frame and (none), 3, 1 of an odd one.
        taps = functional.pad(self.weight, (0, 1)).unflatten(2, (3, 2)).flip(2)
        matrix = taps.permute(3, 1, 2, 0).reshape(2 * self.out_channels, 3 * self.in_channels)
        assert self.bias is not None
        return linear(three, matrix, self.bias.repeat(2)).view(len(x), -1, self.out_channels)
