"""Training of stage 2: teacher forcing that fades out.

A network that always sees true past frames learns to trust them, and derails as soon as it hears itself (exposure
bias). Mean squared error on notes that the generator wrote all by itself, training instruments:

    true past, noise 0.3, a random half hidden             1,000 steps   0.68   (0.34 with the whole past hidden)
    the same, but its own past instead of the true one       800 steps   0.54   (0.33 with the whole past hidden)

(The second line is scheduled sampling in two passes, Mihaylova and Martins 2019.) Under a squared error the own past
can say nothing that map point and pitch have not said, so what the network is trained towards is writing with its past
hidden: in the first quarter of the training a growing share of the notes has no past at all, afterwards all of them.
Sampling (Generator.generate) hides the past in the same way. Earlier tokens still reach later ones through attention.

The map knows one velocity; the generator learns from notes of all. A note of another velocity takes its instrument's
place on the map, so that what velocity changes has to come from the velocity token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from timbrel.distributed import Group, in_bfloat16
from timbrel.errors import DataError
from timbrel.pgesam.curriculum import learning_rate_factor
from timbrel.pgesam.dataset import HIGHEST_VELOCITY, MAIN_VELOCITY, MapNotes
from timbrel.pgesam.evaluation import overfits
from timbrel.pgesam.generator import ATTACK_TOKENS, Generator, GeneratorShape
from timbrel.pgesam.vae_training import Encoded
from timbrel.training import Report, seed_everything, step_generator, train

BETAS = (0.9, 0.95)
EVALUATION_BATCH = 64
EVALUATION_NOTES = 128
LARGEST_GRADIENT = 1.0
TRUTH_SHARE = 0.25
SMALLEST_SQUARE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorTraining:
    """How to train.

    ``condition_noise`` scales σ (μ + 0.01 σ ε); ``input_noise`` is the standard deviation of noise on past frames;
    ``input_dropout`` the mean share of past tokens that are hidden; ``frame_weight`` is the share of
    ``frame_error`` in the loss, the rest is the squared error.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    frame_weight: float
    condition_noise: float
    input_noise: float
    input_dropout: float
    evaluate_every: int
    seed: int


def at_main_velocity(notes: MapNotes, encoded: Encoded) -> tuple[MapNotes, Encoded]:
    """``notes`` of any velocity with the map points (μ, σ) of their instruments at the main velocity.

    A note gets the mean over its instrument's notes of that velocity at the nearest pitch: such a note itself, where
    there is one per pitch. Instruments without such notes are left out. Raises DataError when no note remains.
    """
    placed = Encoded(encoded.mu.copy(), encoded.sigma.copy(), encoded.pitch_logits)
    kept = np.zeros(len(notes), dtype=bool)
    for instrument in np.unique(notes.instrument):
        members = np.flatnonzero(notes.instrument == instrument)
        main = members[notes.velocity[members] == MAIN_VELOCITY]
        if not len(main):
            continue
        distance = np.abs(notes.pitch[members][:, None] - notes.pitch[main][None, :])
        nearest = (distance == distance.min(1, keepdims=True)).astype(np.float32)
        nearest /= nearest.sum(1, keepdims=True)
        placed.mu[members] = nearest @ encoded.mu[main]
        placed.sigma[members] = nearest @ encoded.sigma[main]
        kept[members] = True
    if not kept.any():
        raise DataError(f"no note has velocity {MAIN_VELOCITY}, the map's: rebuild the notes stage with it")
    return notes.take(kept), Encoded(*(values[kept] for values in placed))


def train_generator(
    embeddings: np.ndarray,
    notes: MapNotes,
    encoded: Encoded,
    *,
    shape: GeneratorShape,
    training: GeneratorTraining,
    report: Report,
    device: torch.device,
    checkpoint: Path | None = None,
    group: Group | None = None,
    bfloat16: bool = False,
) -> Generator:
    """Train on split ``train``; every ``evaluate_every`` steps also report free-running errors, train and validation.

    ``embeddings`` [N, shape.frames, 128]; ``encoded`` is the frozen VAE's answer for each entry of ``notes``, in order,
    and of one velocity (at_main_velocity). ``group``: the processes that train together, each on a part of every batch,
    of which the leader reports. ``bfloat16``: forward passes.
    """
    group = group or Group(device)
    seed_everything(training.seed)
    generator = Generator(shape).to(device)
    with torch.no_grad():
        generator.attack.weight.copy_(mean_attacks(embeddings, notes.of("train"), shape))
    optimizer = torch.optim.AdamW(
        generator.parameters(),
        lr=training.learning_rate,
        betas=BETAS,
        weight_decay=training.weight_decay,
        fused=True,
    )
    learning = np.flatnonzero(notes.split == "train")
    if bfloat16:
        in_bfloat16(generator, device)
    parallel = group.parallel(generator)
    watched = {split: _sample(notes, split, training.seed) for split in ("train", "validation")}

    def step(i: int) -> dict[str, float]:
        rng = step_generator(training.seed, i)
        factor = learning_rate_factor(i, steps=training.steps, warmup_steps=training.warmup_steps)
        for parameters in optimizer.param_groups:
            parameters["lr"] = training.learning_rate * factor
        chosen = learning[rng.integers(len(learning), size=training.batch)]
        noise = training.condition_noise * rng.standard_normal(encoded.mu[chosen].shape, dtype=np.float32)
        group.reseed(training.seed, i)
        mine = group.rows()
        position = torch.from_numpy((encoded.mu[chosen] + encoded.sigma[chosen] * noise)[mine]).to(device)
        chosen = chosen[mine]
        pitch = torch.from_numpy(notes.pitch[chosen]).to(device)
        target = generator.to_tokens(frames_of(embeddings, notes.row[chosen], shape, device))
        generator.train()
        faded = i / training.steps / TRUTH_SHARE
        past = previous_tokens(target, training, rng, faded=faded, mine=mine)
        predicted = parallel(past, position, pitch, velocity_of(notes.velocity[chosen], device))
        squared = functional.mse_loss(predicted, target)
        loss = torch.lerp(squared, frame_error(predicted, target, shape.dimensions), training.frame_weight)
        if not group.alone:
            loss, squared = (each * group.weight(training.batch) for each in (loss, squared))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        values = group.mean(torch.stack([loss, squared]).detach()).cpu().tolist()
        return dict(zip(("loss", "loss.mse"), values, strict=True))

    def report_with_figures(done: int, metrics: dict[str, float]) -> None:
        if done % training.evaluate_every == 0 or done == training.steps:
            for split, rows in watched.items():
                if len(rows):
                    error = free_running_error(generator, embeddings, notes, encoded, rows, device)
                    metrics = metrics | {f"{split}.free_running_mse": error}
            if len(watched["validation"]):
                errors = (metrics["train.free_running_mse"], metrics["validation.free_running_mse"])
                metrics = metrics | {"alarm.overfits": float(overfits(*errors))}
        report(done, metrics)

    train(
        step,
        steps=training.steps,
        state={"generator": generator, "optimizer": optimizer},
        report=group.report(report_with_figures),
        report_every=min(50, training.evaluate_every),
        checkpoint=checkpoint,
        checkpoint_seconds=group.checkpoint_seconds,
    )
    return generator.eval()


def previous_tokens(
    target: Tensor,
    training: GeneratorTraining,
    rng: np.random.Generator,
    *,
    faded: float,
    mine: slice = slice(None),
) -> Tensor | None:
    """What the decoder sees of ``target`` [b, t, token_width]: shifted by one (zero first), noisy, partly hidden.

    A note has no past at all with probability ``faded`` (1 and more: none has, told as None). ``target`` are the rows
    ``mine`` of a batch: which pasts are hidden is drawn for all of it.
    """
    tokens = target.shape[1]
    batch = len(target) if mine == slice(None) else training.batch
    if faded >= 1.0:
        return None
    past = target[:, :-1] + training.input_noise * torch.randn_like(target[:, :-1])
    share = np.where(
        rng.random((batch, 1)) < faded, 1.0, rng.random((batch, 1)) * 2.0 * training.input_dropout
    )
    hidden = torch.from_numpy((rng.random((batch, tokens - 1)) < share)[mine]).to(target.device)
    return functional.pad(past.masked_fill(hidden[:, :, None], 0.0), (0, 0, 1, 0))


def mean_attacks(embeddings: np.ndarray, notes: MapNotes, shape: GeneratorShape) -> Tensor:
    """The mean over ``notes`` of their first tokens, for each pitch: float32 [pitches, ATTACK_TOKENS · token_width].

    Zeros for a pitch without a note.
    """
    frames = min(ATTACK_TOKENS * shape.frames_per_token, shape.frames)
    means = np.zeros(
        (shape.pitches, ATTACK_TOKENS * shape.frames_per_token, shape.dimensions), dtype=np.float32
    )
    for pitch in np.unique(notes.pitch):
        rows = notes.row[notes.pitch == pitch]
        means[pitch, :frames] = np.asarray(embeddings[rows, :frames], dtype=np.float32).mean(0)
    return torch.from_numpy(means).flatten(1)


def frame_error(predicted: Tensor, target: Tensor, dimensions: int) -> Tensor:
    """Mean over frames of the root mean square error of a frame; both [b, t, token_width], a scalar.

    What a log-spectral distance is on spectra. Where several sounds are likely, a squared error asks for their mean,
    this one for what is typical.
    """
    square = (predicted - target).unflatten(2, (-1, dimensions)).square()
    return square.mean(-1).add(SMALLEST_SQUARE).sqrt().mean()


def free_running(
    generator: Generator,
    position: np.ndarray,
    pitch: np.ndarray,
    device: torch.device,
    velocity: np.ndarray | None = None,
) -> np.ndarray:
    """Whole notes written by the generator alone: position [n, d], pitch [n] in 0..24 → [n, shape.frames, 128].

    ``velocity`` [n] is MIDI's, 1..127; None is 100 for all.
    """
    if velocity is None:
        velocity = np.full(len(position), MAIN_VELOCITY)
    generator.eval()
    parts = []
    for start in range(0, len(position), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        frames = generator.generate(
            torch.from_numpy(position[part].astype(np.float32)).to(device),
            torch.from_numpy(pitch[part].astype(np.int64)).to(device),
            velocity_of(velocity[part], device),
            frames=generator.shape.frames,
        )
        parts.append(frames.cpu().numpy())
    return np.concatenate(parts)


def free_running_error(
    generator: Generator,
    embeddings: np.ndarray,
    notes: MapNotes,
    encoded: Encoded,
    chosen: np.ndarray,
    device: torch.device,
) -> float:
    """Mean squared error of freely written notes against the true embeddings of entries ``chosen`` of ``notes``."""
    written = free_running(generator, encoded.mu[chosen], notes.pitch[chosen], device, notes.velocity[chosen])
    truth = np.asarray(embeddings[notes.row[chosen], : generator.shape.frames], dtype=np.float32)
    return float(np.mean((written - truth) ** 2, dtype=np.float64))


def velocity_of(velocity: np.ndarray, device: torch.device) -> Tensor:
    """MIDI velocities [n] as the generator takes them: float32 [n] in 0..1."""
    return torch.from_numpy(velocity.astype(np.float32) / HIGHEST_VELOCITY).to(device)


def frames_of(
    embeddings: np.ndarray, rows: np.ndarray, shape: GeneratorShape, device: torch.device
) -> Tensor:
    """Rows of the embeddings as float32 [b, shape.frames, 128]."""
    return torch.from_numpy(embeddings[rows, : shape.frames]).to(device, torch.float32)


def _sample(notes: MapNotes, split: str, seed: int) -> np.ndarray:
    """At most 128 entries of a split, the same in every run with this seed."""
    members = np.flatnonzero(notes.split == split)
    if len(members) <= EVALUATION_NOTES:
        return members
    return np.sort(np.random.default_rng(seed).choice(members, size=EVALUATION_NOTES, replace=False))
