"""Training of the style network after a teacher of its own shape: block by block first, then as a whole.

Every block's maps are to be the teacher's ("hints": Romero et al., FitNets, 2015). In the first part of the steps each
block gets the teacher's maps of the block before, so that all learn at once; after that each gets what the student's
own block before it made, and styles are compared, too. In the last part batch normalisation keeps the averages that it
has seen: what a few sounds happen to have in common is noise to a regression.

Some sounds stand in noise that only the student hears: to the teacher a note in noise 30 dB below is another note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timbrel.encoders.bounded import Bounded, block_weights
from timbrel.encoders.efficientat import EfficientAt, Features
from timbrel.encoders.examples import Pictures
from timbrel.encoders.style import statistics, within
from timbrel.encoders.style_picture import FFT_SIZE, band_weights, to_picture, to_powers, white_noise
from timbrel.encoders.training import learning_rate_factor
from timbrel.training import Report, Stateful, step_generator, train

_CALIBRATED = 6_144  # sounds that scales and axes are taken from
_BATCH = 64
_SCALED = 20  # batches that the maps' scales are taken from
_LEAST_SCALE = 0.05  # of the mean variance of a block's channels: silent ones must not count for much
_CLIP_NORM = 5.0
_MOMENTUM = 0.1
_WEIGHT_DECAY = 1e-4
_SHORTEST = 20  # frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``crop``: frames that a step sees of a sound; ``apart_share``: share of the steps in which blocks learn apart;
    ``normalised_share``: in which batches are normalised by their own averages.

    ``style_weight``: worth of the style's loss against all maps'. ``noisy_share`` of the sounds stand in noise.
    """

    steps: int
    batch: int
    crop: int
    apart_share: float
    normalised_share: float
    learning_rate: float
    style_weight: float
    noisy_share: float
    seed: int


def train_style(
    network: Features,
    teacher: EfficientAt,
    bounded: Bounded,
    pictures: Pictures,
    settings: Settings,
    *,
    report: Report,
    validate: Callable[[Features], dict[str, float]],
    device: torch.device,
    checkpoint: Path | None = None,
) -> None:
    """Train ``network`` in place; it is left in evaluation mode on the CPU.

    ``bounded``: ``standard`` of the teacher. ``report`` gets the losses every 50 steps and ``validate``'s figures ten
    times on the way.
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    guide = teacher.features.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
    bounded.to(device)
    scales = _scales(guide, pictures, settings, device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY)
    apart = round(settings.apart_share * settings.steps)
    normalised = round(settings.normalised_share * settings.steps)
    every = max(1, settings.steps // 10)

    def step(i: int) -> dict[str, float]:
        rng = step_generator(settings.seed, i)
        clean, frames = draw(pictures, rng, settings.batch, settings.crop)
        seen = in_noise(clean, rng, settings.noisy_share)
        clean, seen, frames = (_laid_out(values, device) for values in (clean, seen, frames))
        with torch.no_grad():
            hints, counts = guide.blocks(clean, frames)
        network.train(i < normalised)
        maps = _apart(network, seen, hints, frames) if i < apart else network.blocks(seen, frames)[0]
        assert counts is not None
        losses = [
            within(maps[name], counts[name]).mean((maps[name] - hints[name]).square() * scales[name]).mean()
            for name in hints
        ]
        hint = torch.stack(losses).mean()
        metrics = {"hint_loss": hint.item()}
        loss = hint
        if i >= apart:
            said, right = (bounded(statistics(each, counts)) for each in (maps, hints))
            style = (said - right).square().sum(dim=1).mean() / bounded.variance
            metrics["style_loss"] = style.item()
            loss = hint + settings.style_weight * style
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(i, settings.steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
        optimizer.step()
        if (i + 1) % every == 0 and i + 1 < settings.steps:
            network.eval()
            report(i + 1, validate(network))
        return metrics

    state: dict[str, Stateful] = {"network": network, "optimizer": optimizer}
    train(step, steps=settings.steps, state=state, report=report, report_every=50, checkpoint=checkpoint)
    network.eval().to("cpu")


def draw(pictures: Pictures, rng: np.random.Generator, batch: int, crop: int) -> tuple[Tensor, Tensor]:
    """Random sounds, half of them from a later frame on: pictures [batch, 1, 128, crop] and how many frames count."""
    rows = np.sort(rng.integers(0, len(pictures.heard), batch))
    heard = pictures.heard[rows]
    latest = np.minimum(pictures.values.shape[2] - crop, np.maximum(heard - _SHORTEST, 0))
    begin = np.where(rng.random(batch) < 0.5, 0, (rng.random(batch) * (latest + 1)).astype(np.int64))
    cut = np.stack([
        pictures.values[row, :, start : start + crop] for row, start in zip(rows, begin, strict=True)
    ])  # fmt: skip
    frames = np.clip(heard - begin, _SHORTEST, crop)
    return torch.from_numpy(cut.astype(np.float32))[:, None], torch.from_numpy(frames)


def in_noise(pictures: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """A ``share`` of the pictures in white to pink noise, 30 to 60 dB below the clip's loudest 100 ms.

    As ``augment`` has it: noise adds its own power and a term of random sign, both averaged over a band's bins.
    """
    chosen = np.flatnonzero(rng.random(len(pictures)) < share)
    if not chosen.size:
        return pictures
    weights = band_weights()
    bins = np.maximum((weights > 0).sum(axis=0), 1)
    hertz = np.maximum((weights * np.arange(len(weights))[:, None]).sum(axis=0), 1.0) / np.maximum(
        weights.sum(axis=0), 1e-9
    )
    gain = 10.0 ** (-rng.uniform(30.0, 60.0, (len(chosen), 1)) / 10.0)
    colour = np.maximum(hertz / (FFT_SIZE / 24.0), 0.03) ** -rng.uniform(0.0, 1.0, (len(chosen), 1))
    noise = gain * white_noise(0.0) * colour
    power = to_powers(pictures[chosen].double()).numpy()
    noise, spread = noise[:, None, :, None], bins[None, None, :, None] ** -0.5
    draws = rng.standard_normal((2, *power.shape))
    own = noise * np.maximum(1.0 + draws[0] * spread, 0.05)
    crossed = np.sqrt(2.0 * np.maximum(power, 0.0) * noise) * spread * draws[1]
    mixed = pictures.clone()
    mixed[chosen] = to_picture(torch.from_numpy(np.maximum(power + own + crossed, 0.05 * own))).float()
    return mixed


def standard(teacher: EfficientAt, pictures: Pictures, seed: int) -> Bounded:
    """The teacher's statistics, standardised over some thousand sounds."""
    bounded = Bounded(block_weights(teacher.features.channels))
    bounded.fit(over_some(lambda *seen: statistics(*teacher.features.blocks(*seen)), pictures, seed))
    return bounded


def unexplained(
    network: Features, teacher: EfficientAt, bounded: Bounded, pictures: Tensor, frames: Tensor
) -> float:
    """Share of the variance of the teacher's statistics, ``bounded``, that the network's miss over these pictures."""
    with torch.inference_mode():
        said, right = (
            torch.cat([
                bounded(statistics(*features.blocks(pictures[i : i + _BATCH], frames[i : i + _BATCH])))
                for i in range(0, len(pictures), _BATCH)
            ])
            for features in (network, teacher.features)
        )  # fmt: skip
        return float((said - right).square().sum() / (right - right.mean(dim=0)).square().sum())


def _apart(
    features: Features, picture: Tensor, hints: dict[str, Tensor], frames: Tensor
) -> dict[str, Tensor]:
    """Every block's maps after the teacher's of the block before."""
    maps: dict[str, Tensor] = {}
    before, count = picture, frames
    for number, (name, hint) in enumerate(hints.items()):
        maps[name], after = features.step(number, before, count)
        assert after is not None
        before, count = hint, after
    return maps


@torch.no_grad()
def over_some(function: Callable[[Tensor, Tensor], Tensor], pictures: Pictures, seed: int) -> Tensor:
    """``function`` of some thousand pictures and their frames, in batches; the same ones for the same ``seed``."""
    rows = np.sort(np.random.default_rng((seed, 1)).permutation(len(pictures.heard))[:_CALIBRATED])
    found = []
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        picture = torch.from_numpy(pictures.values[some].astype(np.float32))[:, None]
        found.append(
            function(
                picture.contiguous(memory_format=torch.channels_last), torch.from_numpy(pictures.heard[some])
            )
        )
    return torch.cat(found)


@torch.no_grad()
def _scales(
    guide: Features, pictures: Pictures, settings: Settings, device: torch.device
) -> dict[str, Tensor]:
    """What squared errors of each block's channels are worth, [1, channels, 1, 1]: one over the variance."""
    variances: dict[str, list[Tensor]] = {}
    for i in range(_SCALED):
        rng = step_generator(settings.seed, settings.steps + i)
        values = (_laid_out(each, device) for each in draw(pictures, rng, settings.batch, settings.crop))
        for name, maps in guide.blocks(*values)[0].items():
            variances.setdefault(name, []).append(maps.var(dim=(0, 2, 3)))
    mean = {name: torch.stack(values).mean(dim=0) for name, values in variances.items()}
    return {
        name: value.clamp_min(_LEAST_SCALE * value.mean()).reciprocal()[None, :, None, None]
        for name, value in mean.items()
    }


def _laid_out(values: Tensor, device: torch.device) -> Tensor:
    """On the device, channels last: depthwise convolutions take two thirds of the time so."""
    return values.to(device).contiguous(
        memory_format=torch.channels_last if values.ndim == 4 else torch.contiguous_format
    )
