"""Training steps per second of both stages, beside plain loops of equal size.

    python benchmarks/training_speed.py [--rounds 3] [--output reports/speed.json]

On data/embeddings and the settings of params.yaml, in turns in this one process; writes the ``training`` part of
reports/speed.json. A plain loop is what one would write first, with the same widths, layers, batch and frames:

    generator   torch.nn.Transformer, teacher forcing, one frame to a token; and, for a second line, as many frames to a
                token as ours has. Both read float32 batches
    vae         the same layers of torch.nn, with the seven losses: reads float32 batches and summarises them at each
                step, decodes as many notes with ConvTranspose1d
"""

from __future__ import annotations

import argparse
import json
import math
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
from timbrel.pgesam.generator import GeneratorShape
from timbrel.pgesam.generator_training import GeneratorTraining, train_generator
from timbrel.pgesam.vae import (
    FAMILY_WIDTHS,
    INSTRUMENT_WIDTHS,
    SHORTEST_MOVING_SPAN,
    VaeOutput,
    VaeShape,
    Whitening,
)
from timbrel.pgesam.vae_training import Encoded, Labels, batch_drawer, seven_terms, train_vae
from timbrel.stages.vae import configure

CPU = torch.device("cpu")
# Steps of a short and of a long run; what the map's training does once takes as long as many of its steps.
SHORT, LONG, LONG_VAE = 3, 11, 63
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
        """Predicted and true tokens [b, t, width]; ``position`` holds the velocity as well."""
        target = frames.reshape(len(frames), -1, self.per_token * frames.shape[2])
        numbers = [linear(position[:, i : i + 1]) for i, linear in enumerate(self.into)]
        source = torch.stack([*numbers, self.pitch(pitch)], dim=1) + self.source_positions
        previous = self.frames_in(functional.pad(target[:, :-1], (0, 0, 1, 0))) + self.target_positions
        return self.frames_out(
            self.transformer(source, previous, tgt_mask=self.mask, tgt_is_causal=True)
        ), target


class ChannelsFirstNorm(nn.LayerNorm):
    """Layer normalisation over the channels of [b, channels, frames]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class PlainVae(nn.Module):
    """The layers of Vae, each as torch.nn has it."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        self.moving = [(start, end) for start, end in shape.spans if end - start >= SHORTEST_MOVING_SPAN]
        width, size = (len(shape.spans) + len(self.moving)) * shape.dimensions, shape.map_dimensions
        self.timbre = nn.Sequential(
            *self._normed(width, *shape.hidden),
            *self._linear(shape.hidden[-1], shape.head_width),
            nn.Linear(shape.head_width, 2 * size),
        )
        self.whitening = Whitening(size, shape.map_deviation)
        self.pitch = nn.Sequential(
            *self._normed(width, shape.hidden[0]), nn.Linear(shape.hidden[0], shape.pitches)
        )
        self.family = nn.Sequential(
            *self._linear(size, *FAMILY_WIDTHS), nn.Linear(FAMILY_WIDTHS[-1], shape.families)
        )
        self.instrument = nn.Sequential(
            *self._linear(size, *INSTRUMENT_WIDTHS), nn.Linear(INSTRUMENT_WIDTHS[-1], shape.instruments)
        )
        flat = shape.channels[-1] * shape.coarse_frames
        self.expand = nn.Sequential(*self._linear(size + shape.pitches, *reversed(shape.hidden), flat))
        decoder: list[nn.Module] = []
        for before, after in pairwise(reversed(shape.channels)):
            decoder += [
                nn.ConvTranspose1d(before, after, 5, 2, 2, 1),
                ChannelsFirstNorm(after),
                nn.LeakyReLU(0.2),
            ]
        self.decoder = nn.Sequential(
            *decoder, nn.ConvTranspose1d(shape.channels[0], shape.dimensions, 5, 2, 2, 1)
        )

    def _linear(self, *widths: int) -> list[nn.Module]:
        return [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.LeakyReLU(0.2))]

    def _normed(self, *widths: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout(self.shape.dropout)]
        return layers

    def forward(
        self, embedding: Tensor, *, decoded: int, sample_scale: float, input_noise: float
    ) -> VaeOutput:
        means = [embedding[:, start:end].mean(1) for start, end in self.shape.spans]
        motion = [embedding[:, start:end].std(1) for start, end in self.moving]
        summary = torch.cat([*means, *motion], dim=1)
        summary = summary + input_noise * torch.randn_like(summary)
        raw, log_variance = self.timbre(summary).chunk(2, dim=1)
        mu, logits = self.whitening(raw), self.pitch(summary)
        z = mu + sample_scale * torch.randn_like(mu) * (0.5 * log_variance).exp()
        one_hot = functional.one_hot(logits.argmax(1), self.shape.pitches).float()
        coarse = self.expand(torch.cat([z, one_hot], dim=1)[:decoded]).unflatten(
            1, (self.shape.channels[-1], -1)
        )
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
    settings = params.generator
    named = {field.name for field in fields(GeneratorShape)}
    shape = GeneratorShape(
        dimensions=embeddings.shape[2],
        map_dimensions=params.vae.map_dimensions,
        **{name: getattr(settings, name) for name in named if hasattr(settings, name)},
    )
    named = {field.name for field in fields(GeneratorTraining)} - {"seed"}
    training = GeneratorTraining(seed=params.seed, **{name: getattr(settings, name) for name in named})
    size = shape.map_dimensions
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
            network = PlainGenerator(shape, per_token, shape.condition_tokens)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
            for _ in range(steps):
                chosen = rng.integers(len(notes), size=training.batch)
                frames = torch.from_numpy(embeddings[notes.row[chosen], : shape.frames].astype(np.float32))
                pitch = torch.from_numpy(notes.pitch[chosen])
                place = np.column_stack([mu[chosen], notes.velocity[chosen] / np.float32(127)]).astype(
                    np.float32
                )
                loss = functional.mse_loss(*network(torch.from_numpy(place), pitch, frames))
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
    # Without the comb: it is not trained, and the pitch head, which then reads the summary, is the larger for it.
    shape, training, curriculum = configure(params, notes, dimensions=embeddings.shape[2], spectrum=None)
    learning = notes.of("train")

    def ours(steps: int) -> None:
        settings = replace(training, steps=steps, evaluate_every=steps + 1)
        # Validation would be measured at the last step: training notes only.
        train_vae(
            embeddings, learning, shape=shape, training=settings, curriculum=curriculum,
            report=lambda *_: None, device=CPU,
        )  # fmt: skip

    def plain(steps: int) -> None:
        network = PlainVae(shape)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.05)
        draw = batch_drawer(learning, training)
        labelled = (learning.pitch, learning.family, learning.instrument)
        for step in range(steps):
            batch = draw(np.random.default_rng(step))
            chosen = batch.note
            target = torch.from_numpy(embeddings[learning.row[chosen], : shape.frames].astype(np.float32))
            answer = network(
                target,
                decoded=training.decoded_notes,
                sample_scale=training.sample_scale,
                input_noise=training.input_noise,
            )
            plain = torch.from_numpy(batch.share == 0)
            labels = Labels(
                torch.from_numpy(batch.group),
                *(torch.from_numpy(values[chosen]) for values in labelled),
                plain,
            )
            judged = answer._replace(
                family_logits=answer.family_logits[plain], instrument_logits=answer.instrument_logits[plain]
            )
            terms = seven_terms(judged, target[: training.decoded_notes], labels, margin=training.margin)
            loss = torch.stack([curriculum.at(0.5)[name] * value for name, value in terms.items()]).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return {"vae": ours, "plain_vae": plain}


def steps_per_second(loops: dict[str, Loop], rounds: int, longer: int) -> dict[str, float]:
    """Of each: the steps that a longer run has more than a shorter one, by the time that they take more; the median
    round.

    So what happens once in a training (building, summaries, the last evaluation) does not count; what happens once in
    a process (torch's late imports) falls into a first run that is not timed.
    """
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop(SHORT)
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds = []
            for steps in (SHORT, longer):
                began = time.perf_counter()
                loop(steps)
                seconds.append(time.perf_counter() - began)
            # A busy moment during the shorter run can make it the slower one: such a round tells nothing.
            if seconds[1] > seconds[0]:
                speeds[name].append((longer - SHORT) / (seconds[1] - seconds[0]))
    return {name: float(np.median(values)) if values else math.nan for name, values in speeds.items()}


def measure(params: Params, rounds: int) -> dict[str, Any]:
    stored = Path("data/embeddings/embeddings.npy")
    if not stored.is_file():
        raise DataError(f"{stored} is missing: run make repro")
    embeddings = np.load(stored, mmap_mode="r", allow_pickle=False)
    notes = map_notes(NoteSet.open(Path("data/notes")).notes)
    speeds = steps_per_second(generator_loops(embeddings, notes, params), rounds, LONG)
    speeds |= steps_per_second(vae_loops(embeddings, notes, params), rounds, LONG_VAE)
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
