"""Stage 2: a Transformer that writes a note's embedding frame by frame, from a map point, a pitch and a velocity.

    condition   [x, y, …, pitch, velocity], a token each, learned positions ──► encoder layers ──► memory [b, c, width]
    decoder     previous frames, learned positions, causal self-attention, attention to the memory ──► next frames

The condition's tokens need their positions: without them x and y are interchangeable. A token of the decoder holds
``frames_per_token`` consecutive frames (1 is the paper's; more frames to a token divide both the training and the
sampling time by as much). The first token sees a zero start frame; in sampling all do (generator_training says why).

Two ways through the same weights: ``forward`` for all tokens at once (training, teacher forcing) and ``step`` for the
next tokens with cached keys and values (sampling; it is also what the ONNX graph loops over). Where sampling hides the
frames written so far, a step need not wait for the token before it, so it writes a block of them.

Layers are pre-norm. Shapes: b notes, t tokens, d map dimensions, c condition tokens, l decoder layers, h heads,
e = width / heads. Velocities are given as a share of the largest: MIDI / 127.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.pgesam import weights
from timbrel.pgesam.dataset import HIGHEST_VELOCITY, MAIN_VELOCITY
from timbrel.pgesam.linear import Linear

# Tokens of one step of sampling: enough to keep a core in matrix products rather than in starting operators.
LARGEST_BLOCK = 15
# A note's first tokens have an output layer of their own and, for each pitch, what the training notes have there on
# average: windows that the note fills in part look like no others, and two tokens of sixty are too few to learn it from
# (without this, generated notes dipped by 7 dB at 40-85 ms).
ATTACK_TOKENS = 2


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
    map_dimensions: int = 2
    velocity: bool = True

    @property
    def condition_tokens(self) -> int:
        """One per map dimension, the pitch, and the velocity where it is a condition."""
        return self.map_dimensions + 1 + self.velocity

    @property
    def tokens(self) -> int:
        """Tokens that hold a whole note."""
        return -(-self.frames // self.frames_per_token)

    @property
    def token_width(self) -> int:
        return self.frames_per_token * self.dimensions

    @property
    def block(self) -> int:
        """Tokens written in one step of sampling: the largest share of a note up to 15 that leaves no rest."""
        return max(size for size in range(1, LARGEST_BLOCK + 1) if self.tokens % size == 0)


class Cache(NamedTuple):
    """Keys and values of every past token, [l, b, h, past, e] each."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head attention, with keys and values apart so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = Linear(width, width)
        self.keys_values = Linear(width, 2 * width)
        self.output = Linear(width, width)

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

    def attend_cached(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same in operators that every ONNX runtime has; ``mask`` [t, s] is added (-inf: not to be seen)."""
        queries = self._split(self.queries(x)) * (keys.shape[-1] ** -0.5)
        scores = queries @ keys.transpose(2, 3)
        mixed = (scores if mask is None else scores + mask).softmax(dim=-1) @ values
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
    return nn.Sequential(Linear(width, inner), nn.ReLU(), ChannelDropout(dropout), Linear(inner, width))


class ConditionLayer(nn.Module):
    """Self-attention and feed-forward over the condition tokens."""

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
        """All tokens at once: x [b, t, width], memory [b, c, width]."""
        normed = self.norm_past(x)
        x = x + self.dropout(self.past(normed, *self.past.keys_and_values(normed), causal=True))
        normed = self.norm_condition(x)
        x = x + self.dropout(self.condition(normed, *self.condition.keys_and_values(memory)))
        return x + self.dropout(self.feedforward(self.norm_feedforward(x)))

    def step(
        self, x: Tensor, past: tuple[Tensor, Tensor], condition: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next tokens x [b, t, width]; returns them with the grown keys and values [b, h, past + t, e]."""
        normed = self.norm_past(x)
        new_keys, new_values = self.past.keys_and_values(normed)
        keys = torch.cat([past[0], new_keys], dim=2)
        values = torch.cat([past[1], new_values], dim=2)
        x = x + self.past.attend_cached(normed, keys, values, mask)
        x = x + self.condition.attend_cached(self.norm_condition(x), *condition)
        return x + self.feedforward(self.norm_feedforward(x)), keys, values


class Generator(nn.Module):
    """Map point, pitch and velocity to embedding frames.

    Where ``velocity`` is an argument, it is float [b] in 0..1, and None means MIDI 100; a shape without velocity takes
    no notice of it.
    """

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.shape = shape
        self.coordinates = nn.ModuleList([Linear(1, shape.width) for _ in range(shape.map_dimensions)])
        self.pitch = nn.Embedding(shape.pitches, shape.width)
        if shape.velocity:
            self.velocity = Linear(1, shape.width)
        self.condition_positions = nn.Parameter(0.02 * torch.randn(shape.condition_tokens, shape.width))
        self.condition_layers = nn.ModuleList([ConditionLayer(shape) for _ in range(shape.condition_layers)])
        self.condition_norm = nn.LayerNorm(shape.width)
        self.frames_in = Linear(shape.token_width, shape.width)
        self.positions = nn.Parameter(0.02 * torch.randn(shape.tokens, shape.width))
        self.decoder_layers = nn.ModuleList([DecoderLayer(shape) for _ in range(shape.decoder_layers)])
        self.decoder_norm = nn.LayerNorm(shape.width)
        self.frames_out = Linear(shape.width, shape.token_width)
        self.attack_out = Linear(shape.width, shape.token_width)
        self.attack = nn.Embedding(shape.pitches, ATTACK_TOKENS * shape.token_width)
        nn.init.zeros_(self.attack.weight)

    def to_tokens(self, frames: Tensor) -> Tensor:
        """[b, shape.frames, 128] → [b, tokens, token_width]; the last token is filled up with zeros."""
        missing = self.shape.tokens * self.shape.frames_per_token - self.shape.frames
        padded = functional.pad(frames, (0, 0, 0, missing))
        return padded.reshape(len(frames), self.shape.tokens, self.shape.token_width)

    def to_frames(self, tokens: Tensor) -> Tensor:
        """[b, t, token_width] → [b, t · frames_per_token, 128]."""
        return tokens.unflatten(2, (-1, self.shape.dimensions)).flatten(1, 2)

    def memory(self, position: Tensor, pitch: Tensor, velocity: Tensor | None = None) -> Tensor:
        """position [b, d], pitch [b] in 0..24 → [b, c, width]."""
        parts = [linear(position[:, axis : axis + 1]) for axis, linear in enumerate(self.coordinates)]
        parts.append(self.pitch(pitch))
        if self.shape.velocity:
            if velocity is None:
                velocity = torch.full_like(position[:, 0], MAIN_VELOCITY / HIGHEST_VELOCITY)
            parts.append(self.velocity(velocity[:, None]))
        tokens = torch.stack(parts, dim=1) + self.condition_positions
        for layer in self.condition_layers:
            tokens = layer(tokens)
        return self.condition_norm(tokens)

    def forward(
        self, previous: Tensor | None, position: Tensor, pitch: Tensor, velocity: Tensor | None = None
    ) -> Tensor:
        """Teacher forcing: ``previous`` [b, t, token_width] are the tokens before those returned (first one zero).

        None hides the past of all notes: the whole note [b, tokens, token_width] from zeros, as sampling sees it.
        """
        memory = self.memory(position, pitch, velocity)
        if previous is None:
            x = self.frames_in.bias + self.positions + torch.zeros_like(memory[:, :1])
        else:
            x = self.frames_in(previous) + self.positions[: previous.shape[1]]
        for layer in self.decoder_layers:
            x = layer(x, memory)
        return self.with_attack(self._tokens_out(x, torch.arange(x.shape[1], device=x.device)), pitch)

    def condition_cache(self, position: Tensor, pitch: Tensor, velocity: Tensor | None = None) -> Cache:
        """Keys and values of the condition for every decoder layer, computed once per note: [l, b, h, c, e]."""
        memory = self.memory(position, pitch, velocity)
        pairs = [layer.condition.keys_and_values(memory) for layer in self._layers()]
        return Cache(torch.stack([keys for keys, _ in pairs]), torch.stack([values for _, values in pairs]))

    def empty_cache(self, batch: int) -> Cache:
        """No past."""
        shape = self.shape
        empty = self.positions.new_zeros(
            shape.decoder_layers, batch, shape.heads, 0, shape.width // shape.heads
        )
        return Cache(empty, empty)

    def step(
        self, previous: Tensor | None, index: Tensor, past: Cache, condition: Cache
    ) -> tuple[Tensor, Cache]:
        """The tokens numbered ``index`` (int64 [t], following on ``past``), still ``with_attack``, and the grown cache.

        ``previous`` [b, t, token_width] are the tokens before them; None hides them, as if they were zeros.
        """
        if previous is None:
            hidden = self.frames_in.bias + self.positions[index]
            x = hidden.expand(condition.keys.shape[1], -1, -1)
        else:
            x = self.frames_in(previous) + self.positions[index]
        # A token sees the past, itself and those of its step that come before it.
        clock = torch.arange(past.keys.shape[3] + index.shape[0], device=index.device)
        mask = torch.where(clock[None, :] <= index[:, None], 0.0, -torch.inf)
        keys, values = [], []
        for i, layer in enumerate(self._layers()):
            of_layer = (past.keys[i], past.values[i]), (condition.keys[i], condition.values[i])
            x, k, v = layer.step(x, *of_layer, mask)
            keys.append(k)
            values.append(v)
        tokens = self._tokens_out(x, index)
        return tokens, Cache(torch.stack(keys), torch.stack(values))

    @torch.no_grad()
    def generate(
        self, position: Tensor, pitch: Tensor, velocity: Tensor | None = None, *, frames: int
    ) -> Tensor:
        """Free running: position [b, d], pitch [b] → [b, frames, 128], with frames at most ``shape.frames``.

        The frames already written are not fed back (generator_training says why): every token sees zeros in their
        place, and what it needs of earlier tokens through the cache.
        """
        condition = self.condition_cache(position, pitch, velocity)
        past = self.empty_cache(len(position))
        tokens = []
        wanted = -(-frames // self.shape.frames_per_token)
        for index in torch.arange(self.shape.tokens, device=position.device).split(self.shape.block):
            if index[0] >= wanted:
                break
            block, past = self.step(None, index, past, condition)
            tokens.append(block)
        return self.to_frames(self.with_attack(torch.cat(tokens, dim=1), pitch))[:, :frames]

    def with_attack(self, tokens: Tensor, pitch: Tensor) -> Tensor:
        """A note's tokens from its first on, [b, t, token_width], with the mean attack of their pitch [b] added."""
        first = tokens[:, :ATTACK_TOKENS]
        mean = self.attack(pitch).unflatten(1, (ATTACK_TOKENS, -1))[:, : tokens.shape[1]]
        return torch.cat([first + mean, tokens[:, ATTACK_TOKENS:]], dim=1)

    def _tokens_out(self, x: Tensor, index: Tensor) -> Tensor:
        """What the decoder wrote for the tokens numbered ``index`` [t]: x [b, t, width] → [b, t, token_width]."""
        normed = self.decoder_norm(x)
        in_attack = (index < ATTACK_TOKENS)[None, :, None]
        return torch.where(in_attack, self.attack_out(normed), self.frames_out(normed))

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder_layers if isinstance(layer, DecoderLayer)]


def load_generator(folder: Path) -> tuple[Generator, dict[str, Any]]:
    """The generator of data/generator, in evaluation mode, and its JSON.

    Raises DataError when missing or altered.
    """
    return weights.load(folder, "generator", lambda shape: Generator(GeneratorShape(**shape)))
