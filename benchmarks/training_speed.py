"""Training steps per second of both stages, beside plain loops of equal size.

    python benchmarks/training_speed.py [--rounds 3] [--output reports/speed.json]

On data/embeddings and the settings of params.yaml, in turns in this one process; writes the ``training`` part of
reports/speed.json. A plain loop is what one would write first, with the same widths, layers, batch and frames:

    generator   torch.nn.Transformer, teacher forcing, one frame to a token; and, for a second line, as many frames to a
                token as ours has. Both read float32 batches
    vae         Conv1d, layer norm, elementwise dropout, on float32 batches, with the seven losses
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from timbrel.errors import DataError, TimbrelError
from timbrel.evaluation.report import rounded, update_report
from timbrel.notes.noteset import NoteSet
from timbrel.params import Params, load
from timbrel.pgesam.dataset import MapNotes, map_notes
from timbrel.pgesam.generator import GeneratorShape, load_generator
from timbrel.pgesam.generator_training import GeneratorTraining, train_generator
from timbrel.pgesam.vae import VaeOutput, VaeShape
from timbrel.pgesam.vae_training import Encoded, batch_drawer, seven_terms, train_vae
from timbrel.stages.vae import configure

CPU = torch.device("cpu")
SHORT, LONG = 3, 11
Loop = Callable[[int], None]


class PlainGenerator(nn.Module):
    """nn.Transformer over condition tokens and frames, ``per_token`` frames to a token."""

    def __init__(self, shape: GeneratorShape, per_token: int, condition: int) -> None:
        super().__init__()
        self.per_token, self.condition = per_token, condition
        tokens, width = -(-shape.frames // per_token), per_token * shape.dimensions
        self.into = nn.ModuleList([nn.Linear(1, shape.width) for _ in range(condition - 1)])
        self.pitch = nn.Embedding(shape.pitches, shape.width)
        self.source_positions = nn.Parameter(0.02 * torch.randn(condition, shape.width))
        self.target_positions = nn.Parameter(0.02 * torch.randn(tokens, shape.width))
        self.frames_in, self.frames_out = nn.Linear(width, shape.width), nn.Linear(shape.width, width)
        self.transformer = nn.Transformer(
            d_model=shape.width,
            nhead=shape.heads,
            num_encoder_layers=shape.condition_layers,
            num_decoder_layers=shape.decoder_layers,
            dim_feedforward=shape.feedforward,
            dropout=shape.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(tokens))

    def forward(self, position: Tensor, pitch: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true tokens [b, t, width]."""
        target = frames.reshape(len(frames), -1, self.per_token * frames.shape[2])
        axes = [linear(position[:, i : i + 1]) for i, linear in enumerate(self.into)]
        source = torch.stack([*axes, self.pitch(pitch)], dim=1) + self.source_positions
        previous = self.frames_in(functional.pad(target[:, :-1], (0, 0, 1, 0))) + self.target_positions
        return self.frames_out(
            self.transformer(source, previous, tgt_mask=self.mask, tgt_is_causal=True)
        ), target


class PlainVae(nn.Module):
    """The same widths as Vae, layer by layer as one would write them."""

    def __init__(self, shape: VaeShape, map_size: int) -> None:
        super().__init__()
        self.shape, self.map_size = shape, map_size
        lengths = [shape.frames]
        for _ in shape.channels:
            lengths.append((lengths[-1] + 1) // 2)
        widths = (shape.dimensions, *shape.channels)
        encoder: list[nn.Module] = []
        for (before, after), length in zip(pairwise(widths), lengths[1:], strict=True):
            encoder += [nn.Conv1d(before, after, 5, 2, 2), nn.LayerNorm([after, length])]
            encoder += [nn.LeakyReLU(0.2), nn.Dropout(shape.dropout)]
        flat = shape.channels[-1] * lengths[-1]
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), *self._linear(flat, *shape.hidden))
        self.timbre = self._head(2 * map_size)
        self.pitch = self._head(shape.pitches)
        self.family = nn.Sequential(*self._linear(map_size, 4, 8, 16, 32), nn.Linear(32, shape.families))
        classifier = (4, 8, 16, 32, 64, 32, 64, 128, 256)
        self.instrument = nn.Sequential(
            *self._linear(map_size, *classifier), nn.Linear(256, shape.instruments)
        )
        self.expand = nn.Sequential(*self._linear(map_size + shape.pitches, *reversed(shape.hidden), flat))
        decoder: list[nn.Module] = []
        for (before, after), length in zip(pairwise(reversed(widths)), reversed(lengths[:-1]), strict=True):
            decoder += [nn.ConvTranspose1d(before, after, 5, 2, 2, 1)]
            if after != shape.dimensions or length != shape.frames:
                decoder += [nn.LeakyReLU(0.2), nn.Dropout(shape.dropout)]
        self.decoder = nn.Sequential(*decoder)

    def _linear(self, *widths: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2), nn.Dropout(self.shape.dropout)]
        return layers

    def _head(self, outputs: int) -> nn.Sequential:
        width = self.shape.head_width
        return nn.Sequential(
            nn.Linear(self.shape.hidden[-1], width), nn.LeakyReLU(0.2), nn.Linear(width, outputs)
        )

    def forward(self, embedding: Tensor) -> VaeOutput:
        features = self.encoder(embedding.transpose(1, 2))
        mu, log_variance = self.timbre(features).chunk(2, dim=1)
        logits = self.pitch(features)
        z = mu + torch.randn_like(mu) * (0.5 * log_variance).exp()
        one_hot = functional.one_hot(logits.argmax(1), self.shape.pitches).float()
        coarse = self.expand(torch.cat([z, one_hot], dim=1)).unflatten(1, (self.shape.channels[-1], -1))
        return VaeOutput(
            mu=mu,
            log_variance=log_variance,
            pitch_logits=logits,
            family_logits=self.family(mu),
            instrument_logits=self.instrument(mu),
            reconstruction=self.decoder(coarse)[:, :, : self.shape.frames].transpose(1, 2),
        )


def generator_loops(embeddings: np.ndarray, notes: MapNotes, params: Params) -> dict[str, Loop]:
    """Ours and the plain ones, as functions of the number of steps."""
    shape = load_generator(Path("data/generator"))[0].shape
    named = {field.name for field in fields(GeneratorTraining)} - {"seed"}
    training = GeneratorTraining(
        seed=params.seed, **{name: getattr(params.generator, name) for name in named}
    )
    size = getattr(shape, "map_dimensions", 2)
    rng = np.random.default_rng(0)
    mu = rng.uniform(-0.6, 0.6, (len(notes), size)).astype(np.float32)
    encoded = Encoded(mu=mu, sigma=np.full_like(mu, 0.1), pitch_logits=np.zeros((len(notes), 25), np.float32))

    def ours(steps: int) -> None:
        settings = replace(training, steps=steps, evaluate_every=steps + 1)
        train_generator(
            embeddings, notes, encoded, shape=shape, training=settings, report=lambda *_: None, device=CPU
        )

    def plain(per_token: int) -> Loop:
        def loop(steps: int) -> None:
            network = PlainGenerator(shape, per_token, size + 1)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
            for _ in range(steps):
                chosen = rng.integers(len(notes), size=training.batch)
                frames = torch.from_numpy(embeddings[notes.row[chosen], : shape.frames].astype(np.float32))
                pitch = torch.from_numpy(notes.pitch[chosen])
                loss = functional.mse_loss(*network(torch.from_numpy(mu[chosen]), pitch, frames))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()

        return loop

    return {
        "generator": ours,
        "plain_one_frame_a_token": plain(1),
        "plain_same_tokens": plain(shape.frames_per_token),
    }


def vae_loops(embeddings: np.ndarray, notes: MapNotes, params: Params) -> dict[str, Loop]:
    """Ours and the plain one."""
    shape, training, curriculum = configure(params, notes, dimensions=embeddings.shape[2])
    learning = notes.of("train")

    def ours(steps: int) -> None:
        settings = replace(training, steps=steps, evaluate_every=steps + 1)
        # Validation would be measured at the last step: training notes only.
        train_vae(
            embeddings, learning, shape=shape, training=settings, curriculum=curriculum,
            report=lambda *_: None, device=CPU,
        )  # fmt: skip

    def plain(steps: int) -> None:
        network = PlainVae(shape, getattr(shape, "map_dimensions", 2))
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.05)
        draw = batch_drawer(learning, training)
        for step in range(steps):
            chosen = draw(np.random.default_rng(step))
            target = torch.from_numpy(embeddings[learning.row[chosen], : shape.frames].astype(np.float32))
            labels = (learning.instrument, learning.family, learning.pitch)
            truth = [torch.from_numpy(values[chosen]) for values in labels]
            terms = seven_terms(network(target), target, *truth, margin=training.margin)
            loss = torch.stack([curriculum.at(0.5)[name] * value for name, value in terms.items()]).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return {"vae": ours, "plain_vae": plain}


def steps_per_second(loops: dict[str, Loop], rounds: int) -> dict[str, float]:
    """Of each: the steps that a longer run has more than a shorter one, by the time that they take more; best round.

    So what happens once in a training (building, the first layout, the last evaluation) does not count.
    """
    best = dict.fromkeys(loops, 0.0)
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds = []
            for steps in (SHORT, LONG):
                began = time.perf_counter()
                loop(steps)
                seconds.append(time.perf_counter() - began)
            if seconds[1] > seconds[0]:
                best[name] = max(best[name], (LONG - SHORT) / (seconds[1] - seconds[0]))
    return best


def measure(params: Params, rounds: int) -> dict[str, Any]:
    stored = Path("data/embeddings/embeddings.npy")
    if not stored.is_file():
        raise DataError(f"{stored} is missing: run make repro")
    embeddings = np.load(stored, mmap_mode="r", allow_pickle=False)
    notes = map_notes(NoteSet.open(Path("data/notes")).notes)
    speeds = steps_per_second(
        generator_loops(embeddings, notes, params) | vae_loops(embeddings, notes, params), rounds
    )
    return {
        "threads": torch.get_num_threads(),
        "steps_per_second": speeds,
        "generator_speedup": speeds["generator"] / speeds["plain_one_frame_a_token"],
        "generator_speedup_same_tokens": speeds["generator"] / speeds["plain_same_tokens"],
        "vae_speedup": speeds["vae"] / speeds["plain_vae"],
    }


def main() -> int:
    """Exit status 1, with one line, when something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("reports/speed.json"))
    options = parser.parse_args()
    try:
        report = measure(load(options.params), options.rounds)
    except TimbrelError as error:
        print(f"training_speed: {error.message}", file=sys.stderr)
        return 1
    update_report(options.output, {"training": report})
    print(json.dumps(rounded(report), indent=2))
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
