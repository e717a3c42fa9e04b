"""Training of the timbre network: by contrast, and after a teacher where there is one.

A step sees two notes of each of a few dozen instruments, each note under conditions of its own. Stage 1 has to know an
instrument again at another pitch and velocity, among others at the same pitch. With a teacher, a scaffold on the
network's maps has to say what the teacher says of the same note: that makes the maps worth reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.encoders.augment import augment, augment_lightly, step_random
from timbrel.encoders.batches import Sampler, Sounds
from timbrel.encoders.contrastive import supervised_nt_xent
from timbrel.encoders.mel import log_mel
from timbrel.encoders.scaffold import Scaffold
from timbrel.encoders.timbre import TimbreNetwork
from timbrel.training import Report, Stateful, step_generator, train

_WARM_UP = 0.05  # share of the steps
_WEIGHT_DECAY = 0.02
_CLIP_NORM = 5.0
_LIGHTLY = 0.6  # share of the notes that are hardly disturbed, of which the scaffold learns
_VALIDATIONS = 4
_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. ``scaffold``: its hidden width; ``scaffold_weight``: worth of its loss against the contrast's."""

    steps: int
    batch_instruments: int
    learning_rate: float
    temperature: float
    scaffold: int
    scaffold_weight: float
    near_pitch_share: float
    seed: int


def train_encoder(
    network: TimbreNetwork,
    sounds: Sounds,
    settings: Settings,
    *,
    report: Report,
    validate: Callable[[TimbreNetwork], dict[str, float]],
    device: torch.device,
    checkpoint: Path | None = None,
) -> None:
    """Train ``network`` in place; it is left in evaluation mode on the CPU.

    ``report`` gets the losses every 25 steps and ``validate``'s figures three times on the way.
    """
    network.to(device)
    scaffold = None
    if sounds.target is not None:
        scaffold = Scaffold(network.shape, hidden=settings.scaffold, targets=sounds.target.shape[1])
    trained = nn.ModuleDict({"network": network} | ({"scaffold": scaffold} if scaffold else {})).to(device)
    sampler = Sampler(sounds, size=settings.batch_instruments, near_pitch_share=settings.near_pitch_share)
    optimizer = torch.optim.AdamW(_groups(trained), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: learning_rate_factor(i, settings.steps))
    labels = torch.arange(sampler.size, device=device).repeat(2)
    every = max(1, settings.steps // _VALIDATIONS)

    def step(i: int) -> dict[str, float]:
        trained.train()
        rng = step_generator(settings.seed, i)
        rows = sampler.draw(rng)
        random = step_random(rng)
        power = sounds.power(rows).to(device)
        lightly = torch.rand(len(rows), generator=random).to(device) < _LIGHTLY
        conditions = augment_lightly(power, random), augment(power, random)
        power = torch.where(lightly[:, None, None], *conditions)
        picture = log_mel(power)
        stage1, maps = network.describe(picture)
        loss = supervised_nt_xent(stage1, labels, settings.temperature)
        metrics = {"stage1_loss": loss.item()}
        if scaffold is not None and sounds.target is not None:
            # The teacher heard the note itself: what another condition changed in its colour, it did not hear.
            target = torch.from_numpy(sounds.target[rows]).to(device)
            miss = unexplained(scaffold(maps, picture)[lightly], target[lightly])
            metrics["scaffold_loss"] = miss.item()
            loss = loss + settings.scaffold_weight * miss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), _CLIP_NORM)
        optimizer.step()
        rate = float(schedule.get_last_lr()[0])
        schedule.step()
        if (i + 1) % every == 0 and i + 1 < settings.steps:
            network.eval()
            report(i + 1, validate(network))
        return {**metrics, "learning_rate": rate}

    state: dict[str, Stateful] = {"network": trained, "optimizer": optimizer, "schedule": schedule}
    train(step, steps=settings.steps, state=state, report=report, report_every=25, checkpoint=checkpoint)
    network.eval().to("cpu")


def unexplained(said: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of what was said and what was right, [b, d] each.

    Both parts of the targets have a mean square length of 1: saying nothing (zeros) costs 2.
    """
    return (said - target).square().sum(dim=1).mean()


def learning_rate_factor(i: int, steps: int) -> float:
    """A linear rise over the first 5 % of the steps, then half a cosine down to 1 %."""
    warm_up = max(1, round(_WARM_UP * steps))
    if i < warm_up:
        return (i + 1) / warm_up
    done = (i - warm_up) / max(1, steps - warm_up)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def embed(network: TimbreNetwork, sounds: Sounds) -> np.ndarray:
    """Stage 1 ``[n, d1]`` of undisturbed notes, on the network's device."""
    device = next(network.parameters()).device
    found = []
    for start in range(0, len(sounds.instrument), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(sounds.instrument)))
        found.append(network(log_mel(sounds.power(rows).to(device))).cpu().numpy())
    return np.concatenate(found)


def _groups(network: nn.Module) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels only, not for scales and shifts."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": free, "weight_decay": 0.0}]
