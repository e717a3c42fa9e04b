"""Training of stage 1: batches of several instruments at several pitches, seven losses, a curriculum.

A batch holds ``batch_instruments`` instruments × ``batch_pitches`` notes of each, so that it always has pairs of both
kinds for the neighbour loss. During the first four fifths a pull towards a first layout (layout.py) is added to the
seven losses, from weight 1 down to 0; the rest is theirs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from timbrel.pgesam import evaluation, losses
from timbrel.pgesam.curriculum import Curriculum, learning_rate_factor
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.layout import instrument_layout
from timbrel.pgesam.vae import Vae, VaeOutput, VaeShape
from timbrel.training import Report, seed_everything, step_generator, train

BETAS = (0.9, 0.95)
EVALUATION_BATCH = 256
LARGEST_GRADIENT = 1.0
LAYOUT_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeTraining:
    """How to train. ``input_noise`` is the standard deviation of noise added to the (standardised) input;
    ``time_mask`` is the largest share of frames that is blanked in one stretch."""

    steps: int
    batch_instruments: int
    batch_pitches: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    margin: float
    sample_scale: float
    input_noise: float
    time_mask: float
    evaluate_every: int
    seed: int


class Encoded(NamedTuple):
    """The encoder's answer for many notes: mu [n, 2], sigma [n, 2], pitch_logits [n, 25], float32."""

    mu: np.ndarray
    sigma: np.ndarray
    pitch_logits: np.ndarray


def encode(vae: Vae, embeddings: np.ndarray, rows: np.ndarray, device: torch.device) -> Encoded:
    """Run the encoder in evaluation mode over ``rows`` of ``embeddings`` [N, ≥ frames, 128]."""
    vae.eval()
    parts: list[tuple[np.ndarray, ...]] = []
    with torch.no_grad():
        for start in range(0, len(rows), EVALUATION_BATCH):
            batch = _batch(embeddings, rows[start : start + EVALUATION_BATCH], vae.shape.frames, device)
            mu, log_variance, logits = vae.encoder(batch)
            parts.append((mu.cpu().numpy(), (0.5 * log_variance).exp().cpu().numpy(), logits.cpu().numpy()))
    return Encoded(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def evaluate(
    vae: Vae, embeddings: np.ndarray, notes: MapNotes, device: torch.device, prefix: str
) -> dict[str, float]:
    """Map statistics, pitch-head accuracy and reconstruction error of the decoder (at μ), named ``<prefix>.…``."""
    encoded = encode(vae, embeddings, notes.row, device)
    metrics = evaluation.map_statistics(encoded.mu, notes.instrument, notes.pitch).metrics(prefix)
    metrics[f"{prefix}.pitch_accuracy"] = evaluation.pitch_accuracy(encoded.pitch_logits, notes.pitch)
    squared = 0.0
    with torch.no_grad():
        for start in range(0, len(notes), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            target = _batch(embeddings, notes.row[part], vae.shape.frames, device)
            z = torch.from_numpy(encoded.mu[part]).to(device)
            pitch = torch.from_numpy(encoded.pitch_logits[part].argmax(1)).to(device)
            squared += float(losses.reconstruction(vae.decoder(z, pitch), target)) * len(target)
    metrics[f"{prefix}.embedding_mse"] = squared / len(notes)
    return metrics


def train_vae(
    embeddings: np.ndarray,
    notes: MapNotes,
    *,
    shape: VaeShape,
    training: VaeTraining,
    curriculum: Curriculum,
    report: Report,
    device: torch.device,
    checkpoint: Path | None = None,
) -> Vae:
    """Train on split ``train`` of ``notes``; report losses, and held-out figures every ``evaluate_every`` steps.

    ``embeddings`` [N, ≥ shape.frames, 128] may be a float16 memory map. Held-out means validation.
    ``shape.instruments`` counts the training instruments, which ``notes`` numbers first.
    """
    seed_everything(training.seed)
    vae = Vae(shape).to(device)
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=training.learning_rate, betas=BETAS, weight_decay=training.weight_decay
    )
    learning, heldout = notes.of("train"), notes.of("validation")
    draw = batch_drawer(learning, training)
    layout = torch.from_numpy(
        instrument_layout(embeddings, learning, frames=shape.frames).astype(np.float32)
    ).to(device)

    def step(i: int) -> dict[str, float]:
        rng = step_generator(training.seed, i)
        factor = learning_rate_factor(i, steps=training.steps, warmup_steps=training.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
        chosen = draw(rng)
        target = _batch(embeddings, learning.row[chosen], shape.frames, device)
        vae.train()
        output = vae(_disturbed(target, training, rng), sample_scale=training.sample_scale)
        instrument, family, pitch = (
            torch.from_numpy(values[chosen]).to(device)
            for values in (learning.instrument, learning.family, learning.pitch)
        )
        terms = seven_terms(output, target, instrument, family, pitch, margin=training.margin)
        gamma = i / training.steps
        weights = curriculum.at(gamma) | {"layout": max(0.0, 1.0 - gamma / LAYOUT_SHARE)}
        terms["layout"] = (output.mu - layout[instrument]).square().sum(1).mean()
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        values = torch.stack([total, *terms.values()]).detach().cpu().tolist()
        return dict(zip(("loss", *(f"loss.{name}" for name in terms)), values, strict=True))

    def report_with_figures(done: int, metrics: dict[str, float]) -> None:
        if len(heldout) and (done % training.evaluate_every == 0 or done == training.steps):
            metrics = metrics | evaluate(vae, embeddings, heldout, device, "validation")
        report(done, metrics)

    train(
        step,
        steps=training.steps,
        state={"vae": vae, "optimizer": optimizer},
        report=report_with_figures,
        report_every=min(50, training.evaluate_every),
        checkpoint=checkpoint,
    )
    return vae.eval()


def seven_terms(
    output: VaeOutput, target: Tensor, instrument: Tensor, family: Tensor, pitch: Tensor, *, margin: float
) -> dict[str, Tensor]:
    """The seven losses by the names that a Curriculum weighs."""
    return {
        "reconstruction": losses.reconstruction(output.reconstruction, target),
        "neighbour": losses.neighbour(output.mu, instrument, margin=margin),
        "regularisation": losses.regularisation(output.mu),
        "kl": losses.kl(output.mu, output.log_variance),
        "pitch": losses.pitch(output.pitch_logits, pitch),
        "family": losses.family(output.family_logits, family),
        "instrument": losses.instrument(output.instrument_logits, instrument),
    }


def batch_drawer(notes: MapNotes, training: VaeTraining) -> Callable[[np.random.Generator], np.ndarray]:
    """A function that draws the indices of one batch: some instruments, and some notes of each."""
    members = [np.flatnonzero(notes.instrument == i) for i in np.unique(notes.instrument)]

    def draw(rng: np.random.Generator) -> np.ndarray:
        count = min(training.batch_instruments, len(members))
        chosen = rng.choice(len(members), size=count, replace=False)
        picks = [
            rng.choice(members[i], size=min(training.batch_pitches, len(members[i])), replace=False)
            for i in chosen
        ]
        return np.concatenate(picks)

    return draw


def _batch(embeddings: np.ndarray, rows: np.ndarray, frames: int, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(embeddings[rows, :frames], dtype=np.float32)).to(device)


def _disturbed(target: Tensor, training: VaeTraining, rng: np.random.Generator) -> Tensor:
    """The input with noise and with one stretch of frames blanked, so that no detail can be learned by heart."""
    noise = rng.standard_normal(target.shape, dtype=np.float32) * np.float32(training.input_noise)
    disturbed = target + torch.from_numpy(noise).to(target.device)
    frames = target.shape[1]
    lengths = (rng.random(len(target)) * training.time_mask * frames).astype(np.int64)
    starts = (rng.random(len(target)) * (frames - lengths)).astype(np.int64)
    clock = np.arange(frames)[None, :]
    blank = (clock >= starts[:, None]) & (clock < (starts + lengths)[:, None])
    return disturbed.masked_fill(torch.from_numpy(blank).to(target.device)[:, :, None], 0.0)
