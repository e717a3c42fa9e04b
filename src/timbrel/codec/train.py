"""Train the codec on random windows of notes.

A batch is a set of windows of 2,048 samples at random places of random notes, transformed on the fly: nothing is
computed ahead, no two batches are equal, and a step is a few large matrix products. The loss is a log-spectral
distance, weighted by the ear's resolution, plus terms weighted by amplitude, because partials carry the pitch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from timbrel.codec.emphasis import against_loudest, by_ear, prominence
from timbrel.codec.network import CodecConfig, MagnitudeCodec
from timbrel.codec.spectrum import FFT_SIZE, FULL_SCALE, HOP, WINDOW, to_decibels
from timbrel.errors import DataError
from timbrel.training import Report, pick_device, seed_everything, step_generator, train

# Windows whose loudest bin lies below this are drawn again (once): silence teaches nothing.
SILENT_DB = -75.0
EARLIER_WEIGHT = 0.2
LARGEST_GRADIENT = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecTraining:
    """How long and on how much; the learning rate rises for 100 steps and falls along a cosine to ``steps``.

    ``latent_noise``: on the embedding in training, in standard deviations; what a generator predicts is never exact.
    ``peaks_weight``: of the term ``peaks`` of ``losses``. ``corrections``: of the encoder's first guess; what comes
    before the last of them counts ``EARLIER_WEIGHT`` each.
    """

    hidden: int = 512
    corrections: int = 0
    steps: int = 2_500
    batch_frames: int = 512
    learning_rate: float = 1e-3
    latent_noise: float = 0.05
    peaks_weight: float = 0.0
    pca_frames: int = 30_000  # for the PCA to start from, and as many for the statistics of the embedding
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Notes:
    """Rows of one int16 audio array [N, samples] that may be trained on."""

    audio: np.ndarray
    rows: np.ndarray


def draw_frames(sets: Sequence[Notes], count: int, rng: np.random.Generator) -> np.ndarray:
    """Log magnitudes of ``count`` random windows: float32 [count, 1025]. Every note is as likely as any other."""
    sizes = np.array([len(notes.rows) for notes in sets])
    chosen = rng.integers(0, sizes.sum(), size=count)
    starts_of_sets = np.concatenate([[0], np.cumsum(sizes)])
    windows = np.empty((count, FFT_SIZE), dtype=np.float32)
    for i, notes in enumerate(sets):
        mine = np.flatnonzero((chosen >= starts_of_sets[i]) & (chosen < starts_of_sets[i + 1]))
        samples = notes.audio.shape[1]
        rows = notes.rows[chosen[mine] - starts_of_sets[i]]
        # As in spectrum.stft, a window may hang over either end of its note.
        over = (FFT_SIZE - HOP) // 2
        starts = rng.integers(-over, samples - FFT_SIZE + over + 1, size=len(mine))
        for at, row, start in zip(mine, rows, starts, strict=True):
            low, high = max(start, 0), min(start + FFT_SIZE, samples)
            windows[at] = 0.0
            windows[at, low - start : high - start] = notes.audio[row, low:high]
    windows *= WINDOW / (FULL_SCALE * np.float32(32_768.0))
    return to_decibels(np.abs(fft.rfft(windows, axis=-1)))


def _draw_sounding(sets: Sequence[Notes], count: int, rng: np.random.Generator) -> np.ndarray:
    """As ``draw_frames``, but silent windows are drawn once more, so that few remain."""
    frames = draw_frames(sets, count, rng)
    silent = np.flatnonzero(frames.max(axis=1) < SILENT_DB)
    if len(silent):
        frames[silent] = draw_frames(sets, len(silent), rng)
    return frames


def losses(target: Tensor, decoded: Tensor) -> dict[str, Tensor]:
    """The terms of the loss for dB spectra [n, 1025], each a scalar in dB.

    ``lsd``: root mean square over bins, mean over frames; to be told, not to be minimised. ``heard``: the same with the
    bins weighted ``by_ear``, as they are below. ``partials``: L1 weighted by the square root of the amplitude relative
    to the frame's loudest bin, so that a partial 40 dB down still counts a tenth. ``slopes``: the same weight on the
    step from bin to bin, because a partial's frequency is read from the bins around its peak. ``peaks``: as
    ``partials``, but relative to the loudest bin nearby, among the bins that sound: which partials are there, however
    weak, is what tells an octave from the next.
    """
    error = decoded - target
    near, weight = prominence(target), against_loudest(target)
    ear = by_ear(error.shape[-1]).to(error.device)
    return {
        "lsd": error.square().mean(dim=-1).add(1e-4).sqrt().mean(),
        "heard": (ear * error.square()).mean(dim=-1).add(1e-4).sqrt().mean(),
        "partials": (weight * error.abs()).sum(dim=-1).mean(),
        "slopes": (weight[:, 1:] * error.diff(dim=-1).abs()).sum(dim=-1).mean(),
        "peaks": (near * error.abs()).sum() / near.sum().clamp_min(1.0),
    }


def learning_rate_share(step: int, steps: int) -> float:
    """The share of the full learning rate at ``step``: a rise over 100 steps (or a tenth), then a cosine to 0."""
    rise = min(100, max(1, steps // 10))
    return min(1.0, (step + 1) / rise) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def train_codec(
    sets: Sequence[Notes],
    settings: CodecTraining,
    *,
    report: Report,
    start: MagnitudeCodec | None = None,
    validate: Callable[[MagnitudeCodec], dict[str, float]] | None = None,
    report_every: int = 50,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> MagnitudeCodec:
    """A trained, standardised codec on the CPU; with ``start``, a copy of it that was trained further.

    ``report`` gets ``loss``, the terms of ``losses`` in dB and the ``learning_rate``, and what
    ``validate(network)`` returns each time. Raises DataError without notes.
    """
    if not sum(len(notes.rows) for notes in sets):
        raise DataError("no note to train the codec on: check the split of data/notes")
    device = pick_device()
    seed_everything(settings.seed)
    network = (start or MagnitudeCodec(CodecConfig(hidden=settings.hidden))).with_corrections(
        settings.corrections
    )
    before = step_generator(settings.seed, 2**31)
    first = _draw_sounding(sets, settings.pca_frames, before)
    if start is None:
        network.start_from_pca(first, settings.seed)
    statistics = torch.from_numpy(_draw_sounding(sets, settings.pca_frames, before))
    network.standardise(statistics)
    network.to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True
    )

    def judged(target: Tensor, latent: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        noise = torch.randn_like(latent) * (settings.latent_noise * network.latent_scale)
        terms = losses(target, network.spectrum(latent + noise))
        loss = terms["heard"] + terms["partials"] + terms["slopes"] + settings.peaks_weight * terms["peaks"]
        return loss, terms

    def step(i: int) -> dict[str, float]:
        rng = step_generator(settings.seed, i)
        target = torch.from_numpy(_draw_sounding(sets, settings.batch_frames, rng)).to(device)
        rate = settings.learning_rate * learning_rate_share(i, settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        *earlier, latent = network.latents(target)
        loss, terms = judged(target, latent)
        for guess in earlier:
            loss = loss + EARLIER_WEIGHT * judged(target, guess)[0]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        metrics = {name: term.item() for name, term in terms.items()}
        return {"loss": loss.item(), **metrics, "learning_rate": rate}

    def report_with_validation(i: int, metrics: dict[str, float]) -> None:
        report(i, metrics if validate is None else metrics | validate(network))

    report_with_validation(0, {})
    train(
        step,
        steps=settings.steps,
        state={"network": network, "optimiser": optimiser},
        report=report_with_validation,
        report_every=report_every,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
    )
    network.eval().cpu()
    network.standardise(statistics)
    return network


@torch.no_grad()
def validation_losses(
    network: MagnitudeCodec, sets: Sequence[Notes], seed: int, count: int = 1_500
) -> dict[str, float]:
    """The loss terms in dB on the same ``count`` random frames of held-out notes each time, named ``heldout_…``."""
    drawn = _draw_sounding(sets, count, step_generator(seed, 2**31 + 1))
    frames = torch.from_numpy(drawn).to(network.mean.device)
    terms = losses(frames, network.spectrum(network.latent(frames)))
    return {f"heldout_{name}": term.item() for name, term in terms.items()}
