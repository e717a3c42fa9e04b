"""Stage 2: a Transformer that writes a note's embedding frame by frame, from a map point and a pitch.

    condition   [x, y, pitch] as three tokens with learned positions ──► encoder layers ──► memory [b, 3, width]
    decoder     previous frames, learned positions, causal self-attention, attention to the memory ──► next frames

The three tokens need their positions: without them x and y are interchangeable. A token of the decoder holds
``frames_per_token`` consecutive frames (1 is the paper's; more frames to a token divide both the training and the
sampling time by as much). The first token sees a zero start frame; in sampling all do (generator_training says why).

Two ways through the same weights: ``forward`` for all tokens at once (training, teacher forcing) and ``step`` for one
token with cached keys and values (sampling; it is also what the ONNX graph loops over).

Layers are pre-norm. Shapes: b notes, t tokens, l decoder layers, h heads, e = width / heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.pgesam import weights

CONDITION_TOKENS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorShape:
    """Everything that fixes the shapes of the weights."""

    width: int = 192
    heads: int = 4
    condition_layers: int = 2
    decoder_layers: int = 4
    feedforward: int = 704
    frames: int = 300
    frames_per_token: int = 5
    dimensions: int = 128
    pitches: int = 25
    dropout: float = 0.1

    @property
    def tokens(self) -> int:
        """Tokens that hold a whole note."""
        return -(-self.frames // self.frames_per_token)

    @property
    def token_width(self) -> int:
        return self.frames_per_token * self.dimensions


class Cache(NamedTuple):
    """Keys and values of every past token, [l, b, h, past, e] each."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head attention, with keys and values apart so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        """[b, t, width] → [b, h, t, e]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """[b, t, width] → two of [b, h, t, e]."""
        keys, values = self.keys_values(source).chunk(2, dim=2)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
        """x [b, t, width] attends to keys and values [b, h, s, e]; ``causal`` needs s = t."""
        queries = self._split(self.queries(x))
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def attend_one(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The same for one token [b, 1, width], written out in operators that every ONNX runtime has."""
        queries = self._split(self.queries(x)) * (keys.shape[-1] ** -0.5)
        mixed = (queries @ keys.transpose(2, 3)).softmax(dim=-1) @ values
        return self.output(mixed.transpose(1, 2).flatten(2))


class ChannelDropout(nn.Module):
    """Dropout of whole channels of [b, t, width]: one draw per note, the same for all its tokens.

    Drawing every element took a quarter of a training step on a CPU; this costs nothing.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        keep = torch.empty(len(x), 1, x.shape[2], device=x.device).bernoulli_(1.0 - self.share)
        return x * (keep / (1.0 - self.share))


def _feedforward(width: int, inner: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), ChannelDropout(dropout), nn.Linear(inner, width))


class ConditionLayer(nn.Module):
    """Self-attention and feed-forward over the three condition tokens."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(shape.width)
        self.attention = Attention(shape.width, shape.heads)
        self.norm_feedforward = nn.LayerNorm(shape.width)
        self.feedforward = _feedforward(shape.width, shape.feedforward, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_attention(x)
        x = x + self.attention(normed, *self.attention.keys_and_values(normed))
        return x + self.feedforward(self.norm_feedforward(x))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the condition, feed-forward."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.norm_past = nn.LayerNorm(shape.width)
        self.past = Attention(shape.width, shape.heads)
        self.norm_condition = nn.LayerNorm(shape.width)
        self.condition = Attention(shape.width, shape.heads)
        self.norm_feedforward = nn.LayerNorm(shape.width)
        self.feedforward = _feedforward(shape.width, shape.feedforward, shape.dropout)
        self.dropout = ChannelDropout(shape.dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """All tokens at once: x [b, t, width], memory [b, 3, width]."""
        normed = self.norm_past(x)
        x = x + self.dropout(self.past(normed, *self.past.keys_and_values(normed), causal=True))
        normed = self.norm_condition(x)
        x = x + self.dropout(self.condition(normed, *self.condition.keys_and_values(memory)))
        return x + self.dropout(self.feedforward(self.norm_feedforward(x)))

    def step(
        self, x: Tensor, past: tuple[Tensor, Tensor], condition: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token x [b, 1, width]; returns it with the grown keys and values [b, h, past + 1, e]."""
        normed = self.norm_past(x)
        new_keys, new_values = self.past.keys_and_values(normed)
        keys = torch.cat([past[0], new_keys], dim=2)
        values = torch.cat([past[1], new_values], dim=2)
        x = x + self.past.attend_one(normed, keys, values)
        x = x + self.condition.attend_one(self.norm_condition(x), *condition)
        return x + self.feedforward(self.norm_feedforward(x)), keys, values


class Generator(nn.Module):
    """Map point and pitch to embedding frames."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.shape = shape
        self.coordinates = nn.ModuleList([nn.Linear(1, shape.width) for _ in range(2)])
        self.pitch = nn.Embedding(shape.pitches, shape.width)
        self.condition_positions = nn.Parameter(0.02 * torch.randn(CONDITION_TOKENS, shape.width))
        self.condition_layers = nn.ModuleList([ConditionLayer(shape) for _ in range(shape.condition_layers)])
        self.condition_norm = nn.LayerNorm(shape.width)
        self.frames_in = nn.Linear(shape.token_width, shape.width)
        self.positions = nn.Parameter(0.02 * torch.randn(shape.tokens, shape.width))
        self.decoder_layers = nn.ModuleList([DecoderLayer(shape) for _ in range(shape.decoder_layers)])
        self.decoder_norm = nn.LayerNorm(shape.width)
        self.frames_out = nn.Linear(shape.width, shape.token_width)

    def to_tokens(self, frames: Tensor) -> Tensor:
        """[b, shape.frames, 128] → [b, tokens, token_width]; the last token is filled up with zeros."""
        missing = self.shape.tokens * self.shape.frames_per_token - self.shape.frames
        padded = functional.pad(frames, (0, 0, 0, missing))
        return padded.reshape(len(frames), self.shape.tokens, self.shape.token_width)

    def to_frames(self, tokens: Tensor) -> Tensor:
        """[b, t, token_width] → [b, t · frames_per_token, 128]."""
        return tokens.reshape(len(tokens), -1, self.shape.dimensions)

    def memory(self, position: Tensor, pitch: Tensor) -> Tensor:
        """position [b, 2], pitch [b] in 0..24 → [b, 3, width]."""
        x, y = (linear(position[:, axis : axis + 1]) for axis, linear in enumerate(self.coordinates))
        tokens = torch.stack([x, y, self.pitch(pitch)], dim=1) + self.condition_positions
        for layer in self.condition_layers:
            tokens = layer(tokens)
        return self.condition_norm(tokens)

    def forward(self, previous: Tensor, position: Tensor, pitch: Tensor) -> Tensor:
        """Teacher forcing: ``previous`` [b, t, token_width] are the tokens before those returned (first one zero)."""
        memory = self.memory(position, pitch)
        x = self.frames_in(previous) + self.positions[: previous.shape[1]]
        for layer in self.decoder_layers:
            x = layer(x, memory)
        return self.frames_out(self.decoder_norm(x))

    def condition_cache(self, position: Tensor, pitch: Tensor) -> Cache:
        """Keys and values of the condition for every decoder layer, computed once per note: [l, b, h, 3, e]."""
        memory = self.memory(position, pitch)
        pairs = [layer.condition.keys_and_values(memory) for layer in self._layers()]
        return Cache(torch.stack([keys for keys, _ in pairs]), torch.stack([values for _, values in pairs]))

    def empty_cache(self, batch: int) -> Cache:
        """No past."""
        shape = self.shape
        empty = self.positions.new_zeros(
            shape.decoder_layers, batch, shape.heads, 0, shape.width // shape.heads
        )
        return Cache(empty, empty)

    def step(self, previous: Tensor, index: Tensor, past: Cache, condition: Cache) -> tuple[Tensor, Cache]:
        """Token number ``index`` (int64, [1]) after ``previous`` [b, token_width]; returns it and the grown cache."""
        x = self.frames_in(previous)[:, None, :] + self.positions[index]
        keys, values = [], []
        for i, layer in enumerate(self._layers()):
            x, k, v = layer.step(x, (past.keys[i], past.values[i]), (condition.keys[i], condition.values[i]))
            keys.append(k)
            values.append(v)
        token = self.frames_out(self.decoder_norm(x))[:, 0]
        return token, Cache(torch.stack(keys), torch.stack(values))

    @torch.no_grad()
    def generate(self, position: Tensor, pitch: Tensor, *, frames: int) -> Tensor:
        """Free running: position [b, 2], pitch [b] → [b, frames, 128], with frames at most ``shape.frames``.

        The frames already written are not fed back (generator_training says why): every token sees zeros in their
        place, and what it needs of earlier tokens through the cache.
        """
        condition = self.condition_cache(position, pitch)
        past = self.empty_cache(len(position))
        hidden = position.new_zeros(len(position), self.shape.token_width)
        tokens = []
        for index in range(-(-frames // self.shape.frames_per_token)):
            token, past = self.step(hidden, torch.tensor([index], device=position.device), past, condition)
            tokens.append(token)
        return self.to_frames(torch.stack(tokens, dim=1))[:, :frames]

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder_layers if isinstance(layer, DecoderLayer)]


def load_generator(folder: Path) -> tuple[Generator, dict[str, Any]]:
    """The generator of data/generator, in evaluation mode, and its JSON.

    Raises DataError when missing or altered.
    """
    return weights.load(folder, "generator", lambda shape: Generator(GeneratorShape(**shape)))
