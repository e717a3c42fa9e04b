"""A tiny map and generator, trained by as many processes as torchrun started: ``two_processes.py FOLDER DROPOUT``.

The leader writes what it reported and the weights. With ``die N`` the process of rank 1 kills itself at the leader's
first report; with ``stop`` all end there in good order, as a training that was cut off.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from support.map_notes import map_notes_of
from timbrel import distributed, training
from timbrel.pgesam.curriculum import Curriculum
from timbrel.pgesam.generator import GeneratorShape
from timbrel.pgesam.generator_training import GeneratorTraining, train_generator
from timbrel.pgesam.vae import VaeShape
from timbrel.pgesam.vae_training import VaeTraining, encode, train_vae

STEPS = 6
WEIGHTS = {
    "reconstruction": 0.8, "neighbour": 5.0, "regularisation": 0.3, "kl": 0.01, "pitch": 0.5, "family": 0.1,
    "instrument": 0.1,
}  # fmt: skip


def main(folder: Path, dropout: float, at_step: Callable[[str, int], None]) -> None:
    """Train both; ``dropout`` and noise are 0 where the number of processes must make no difference."""
    # Seven instruments of unlike sizes: no part of a batch is as large as another.
    entries = [
        (i, i % 3, pitch, "train" if i < 7 else "validation") for i in range(8) for pitch in range(9 + i)
    ]
    notes = map_notes_of(entries)
    embeddings = np.random.default_rng(0).standard_normal((len(entries), 300, 128)).astype(np.float16)
    with distributed.join("cpu") as group:
        reports: dict[str, list[tuple[int, dict[str, float]]]] = {"vae": [], "generator": []}

        def reporter(name: str) -> training.Report:
            def report(step: int, metrics: dict[str, float]) -> None:
                reports[name].append((step, metrics))
                at_step(name, step)

            return report

        vae = train_vae(
            embeddings,
            notes,
            shape=VaeShape(
                instruments=7, frames=150, channels=(8,) * 5, hidden=(16,) * 4, head_width=16, dropout=dropout
            ),
            training=VaeTraining(
                steps=STEPS, batch_instruments=5, batch_pitches=5, learning_rate=1e-3, weight_decay=0.05,
                warmup_steps=1, margin=0.25, sample_scale=dropout, input_noise=dropout, mixed_share=0.4,
                decoded_notes=7, evaluate_every=1, seed=3,
            ),
            curriculum=Curriculum(
                weights=WEIGHTS, family_schedule="one_minus_power", family_exponent=1.0, neighbour_exponent=0.0,
                instrument_exponent=0.0,
            ),
            report=reporter("vae"),
            device=group.device,
            checkpoint=folder / "vae.pt",
            group=group,
        )  # fmt: skip
        generator = train_generator(
            embeddings,
            notes,
            encode(vae, embeddings, notes.row, group.device),
            shape=GeneratorShape(
                width=16, heads=2, condition_layers=1, decoder_layers=1, feedforward=32, frames=300,
                frames_per_token=30, dropout=dropout,
            ),
            training=GeneratorTraining(
                steps=STEPS, batch=5, learning_rate=1e-3, weight_decay=0.05, warmup_steps=1, frame_weight=0.5,
                condition_noise=0.01, input_noise=dropout, input_dropout=0.5, evaluate_every=1, seed=3,
            ),
            report=reporter("generator"),
            device=group.device,
            checkpoint=folder / "generator.pt",
            group=group,
        )  # fmt: skip
        if group.leads:
            keep(folder, vae, generator)
            (folder / "reports.json").write_text(json.dumps(reports))


def keep(folder: Path, vae: nn.Module, generator: nn.Module) -> None:
    torch.save({"vae": vae.state_dict(), "generator": generator.state_dict()}, folder / "weights.pt")


def fault(what: str) -> Callable[[str, int], None]:
    """What happens to the run after the leader's third report of the generator."""

    def at_step(name: str, step: int) -> None:
        if what == "die" and (name, step) == ("generator", 3):
            os.kill(int((Path(sys.argv[1]) / "rank1.pid").read_text()), signal.SIGKILL)

    return at_step


if __name__ == "__main__":
    chosen = Path(sys.argv[1])
    (chosen / f"rank{os.environ.get('RANK', '0')}.pid").write_text(str(os.getpid()))
    # So that every step leaves a checkpoint.
    distributed._CHECKPOINT_SECONDS = 0.0
    main(chosen, float(sys.argv[2]), fault(sys.argv[3] if len(sys.argv) > 3 else ""))
