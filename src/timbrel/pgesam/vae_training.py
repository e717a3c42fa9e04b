"""Training of stage 1: batches of several instruments at several pitches, seven losses, a curriculum.

A batch holds ``batch_instruments`` instruments × ``batch_pitches`` notes of each, so that it always has pairs of both
kinds for the neighbour loss. A share of them are mixtures: instruments that nobody built, half-way between two, made
by fading one training instrument into another by the same amount at every pitch (the idea of mixup, Zhang et al. 2018,
applied to instruments). They tell the encoder what "the same instrument" means where there is no instrument: on 169
training instruments held-out V_inst / V_pitch fell from 0.035 to 0.009 with them.

Only some notes of a batch are decoded: the map needs many pairs of notes, the decoder is what takes the time. What is
kept is a moving average of the weights, whose map trembles less than the last step's.

In several processes (``timbrel.distributed``) each has a part of the batch. The neighbour loss, the other losses on μ
and the whitening see all of it; each decodes and reconstructs its own notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from timbrel.distributed import Group, WholeBatch, in_bfloat16
from timbrel.pgesam import evaluation, losses
from timbrel.pgesam.curriculum import Curriculum, learning_rate_factor
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.vae import Vae, VaeOutput, VaeShape
from timbrel.training import Report, seed_everything, step_generator, train

BETAS = (0.9, 0.95)
EVALUATION_BATCH = 256
LARGEST_GRADIENT = 1.0
LARGEST_MIXTURE = 0.5
AVERAGE_DECAY = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeTraining:
    """How to train. ``input_noise`` is the standard deviation of noise added to the encoder's (standardised) summary,
    ``mixed_share`` the share of instruments that are mixtures, ``decoded_notes`` how many notes of a batch are decoded.
    """

    steps: int
    batch_instruments: int
    batch_pitches: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    margin: float
    sample_scale: float
    input_noise: float
    mixed_share: float
    decoded_notes: int
    evaluate_every: int
    seed: int


class Encoded(NamedTuple):
    """The encoder's answer for many notes: mu [n, d], sigma [n, d], pitch_logits [n, 25], float32."""

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
    spectrum: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    group: Group | None = None,
    bfloat16: bool = False,
) -> Vae:
    """Train on split ``train`` of ``notes``; report losses, and held-out figures every ``evaluate_every`` steps.

    ``embeddings`` [N, ≥ shape.frames, 128] may be a float16 memory map. Held-out means validation.
    ``shape.instruments`` counts the training instruments, which ``notes`` numbers first. ``spectrum``: the weights of
    the codec's decoder, where the shape has one. ``group``: the processes that train together, of which the leader
    reports; each needs at least one of the decoded notes. ``bfloat16``: forward passes but the map's whitening.
    """
    group = group or Group(device)
    seed_everything(training.seed)
    vae = Vae(shape)
    if vae.encoder.comb is not None and spectrum is not None:
        vae.encoder.comb.decoder.take(spectrum)
    vae.to(device)
    optimizer = torch.optim.AdamW(
        vae.parameters(),
        lr=training.learning_rate,
        betas=BETAS,
        weight_decay=training.weight_decay,
        fused=True,
    )
    learning, heldout = notes.of("train"), notes.of("validation")
    summaries = summarise(vae, embeddings, learning.row, device)
    noise_scale = training.input_noise * summaries.std(0)
    draw = batch_drawer(learning, training)
    average = AveragedModel(vae, multi_avg_fn=_moving_average, use_buffers=True)
    kept = cast("Vae", average.module)
    if bfloat16:
        for part in (vae.encoder.timbre, vae.encoder.pitch, vae.decoder, vae.family, vae.instrument):
            in_bfloat16(part, device)
    whole = WholeBatch(group, vae.encoder.whitening)
    parallel = group.parallel(vae)

    def step(i: int) -> dict[str, float]:
        rng = step_generator(training.seed, i)
        factor = learning_rate_factor(i, steps=training.steps, warmup_steps=training.warmup_steps)
        for parameters in optimizer.param_groups:
            parameters["lr"] = training.learning_rate * factor
        batch = draw(rng)
        group.reseed(training.seed, i)
        mine = group.rows()
        notes_in_all, plain_in_all = len(batch.note), int((batch.share == 0).sum())
        decoded_in_all = min(training.decoded_notes, notes_in_all)
        own_decoded = group.own(decoded_in_all)
        share = torch.from_numpy(batch.share[mine]).to(device)[:, None]
        summary = torch.lerp(summaries[batch.note[mine]], summaries[batch.partner[mine]], share)
        vae.train()
        whole.count = notes_in_all
        output = parallel(
            summary.addcmul(noise_scale, torch.randn_like(summary)),
            sample_scale=training.sample_scale,
            decoded=slice(own_decoded),
            judged=slice(group.own(plain_in_all)),
        )
        output = gathered(output, group, notes=notes_in_all, plain=plain_in_all)
        decoded = learning.row[batch.note[mine][:own_decoded]]
        labels = Labels(
            *(
                group.order(torch.from_numpy(values)).to(device)
                for values in (
                    batch.group,
                    learning.pitch[batch.note],
                    learning.family[batch.note],
                    learning.instrument[batch.note],
                    batch.share == 0,
                )
            )
        )
        target = _batch(embeddings, decoded, shape.frames, device)
        terms = seven_terms(output, target, labels, margin=training.margin)
        if not group.alone:
            terms["reconstruction"] = terms["reconstruction"] * group.weight(decoded_in_all)
        weights = curriculum.at(i / training.steps)
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        average.update_parameters(vae)
        values = group.mean(torch.stack([total, *terms.values()]).detach()).cpu().tolist()
        return dict(zip(("loss", *(f"loss.{name}" for name in terms)), values, strict=True))

    def report_with_figures(done: int, metrics: dict[str, float]) -> None:
        if len(heldout) and (done % training.evaluate_every == 0 or done == training.steps):
            metrics = metrics | evaluate(kept, embeddings, heldout, device, "validation")
        report(done, metrics)

    train(
        step,
        steps=training.steps,
        state={"vae": vae, "average": average, "optimizer": optimizer},
        report=group.report(report_with_figures),
        report_every=min(50, training.evaluate_every),
        checkpoint=checkpoint,
        checkpoint_seconds=group.checkpoint_seconds,
    )
    return kept.eval()


class Labels(NamedTuple):
    """Of the notes of a batch, [b] each: ``group`` numbers the instruments of the batch, mixtures among them;
    ``plain`` is true where a note is no mixture. Family and instrument are the first parent's."""

    group: Tensor
    pitch: Tensor
    family: Tensor
    instrument: Tensor
    plain: Tensor


def gathered(output: VaeOutput, group: Group, *, notes: int, plain: int) -> VaeOutput:
    """What every process found of its part of ``notes``, ``plain`` of which are classified; the reconstruction, far the
    largest, stays where it is."""
    return output._replace(
        mu=group.gather(output.mu, notes),
        log_variance=group.gather(output.log_variance, notes),
        pitch_logits=group.gather(output.pitch_logits, notes),
        family_logits=group.gather(output.family_logits, plain),
        instrument_logits=group.gather(output.instrument_logits, plain),
    )


def seven_terms(output: VaeOutput, target: Tensor, labels: Labels, *, margin: float) -> dict[str, Tensor]:
    """The seven losses by the names that a Curriculum weighs. ``target`` is of the notes that were decoded, the first
    ones; the classifiers on μ answer for the plain notes only."""
    plain = labels.plain
    return {
        "reconstruction": losses.reconstruction(output.reconstruction, target),
        "neighbour": losses.neighbour(output.mu, labels.group, margin=margin),
        "regularisation": losses.regularisation(output.mu),
        "kl": losses.kl(output.mu, output.log_variance),
        "pitch": losses.pitch(output.pitch_logits, labels.pitch),
        "family": losses.family(output.family_logits, labels.family[plain]),
        "instrument": losses.instrument(output.instrument_logits, labels.instrument[plain]),
    }


class Batch(NamedTuple):
    """Notes of one step, [b] each: ``note`` faded into ``partner`` (same pitch) by ``share``, 0 for no mixture.

    Plain notes come first, in random order, so that the first few are a fair sample to decode. ``group`` numbers the
    instruments drawn. ``note`` and ``partner`` are indices of the training notes.
    """

    note: np.ndarray
    partner: np.ndarray
    share: np.ndarray
    group: np.ndarray


def batch_drawer(notes: MapNotes, training: VaeTraining) -> Callable[[np.random.Generator], Batch]:
    """A function that draws one batch: some instruments and mixtures of two, and some notes of each."""
    members = [np.flatnonzero(notes.instrument == i) for i in np.unique(notes.instrument)]
    at_pitch = [dict(zip(notes.pitch[own].tolist(), own.tolist(), strict=True)) for own in members]
    count = min(training.batch_instruments, len(members))
    mixed = round(training.mixed_share * count)

    def some(own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(own, size=min(training.batch_pitches, len(own)), replace=False)

    def draw(rng: np.random.Generator) -> Batch:
        chosen = rng.choice(len(members), size=count, replace=False)
        plain: list[tuple[int, int, float, int]] = []
        mixtures: list[tuple[int, int, float, int]] = []
        for group, i in enumerate(chosen):
            picked = some(members[i], rng)
            if group >= mixed:
                plain += [(note, note, 0.0, group) for note in picked]
                continue
            partners = at_pitch[rng.integers(len(members))]
            share = rng.uniform(0.0, LARGEST_MIXTURE)
            mixtures += [
                (note, partners[pitch], share, group)
                for note, pitch in zip(picked, notes.pitch[picked].tolist(), strict=True)
                if pitch in partners
            ]
        order = [plain[i] for i in rng.permutation(len(plain))] + mixtures
        note, partner, share_, group_ = zip(*order, strict=True)
        return Batch(np.array(note), np.array(partner), np.array(share_, dtype=np.float32), np.array(group_))

    return draw


@torch.no_grad()
def _moving_average(average: Sequence[Tensor], latest: Sequence[Tensor], count: Tensor | int) -> None:
    """An exponential moving average that begins as a plain one, so that the first weights do not linger."""
    decay = min(AVERAGE_DECAY, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(list(average), list(latest), 1.0 - decay)


def summarise(vae: Vae, embeddings: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """The encoder's summary of every row [n, width]: it does not learn, so once is enough."""
    with torch.no_grad():
        return torch.cat(
            [
                vae.encoder.summary(
                    _batch(embeddings, rows[start : start + EVALUATION_BATCH], vae.shape.frames, device)
                )
                for start in range(0, len(rows), EVALUATION_BATCH)
            ]
        )


def _batch(embeddings: np.ndarray, rows: np.ndarray, frames: int, device: torch.device) -> Tensor:
    return torch.from_numpy(embeddings[rows, :frames]).to(device, torch.float32)
