"""Stage ``generator``: the Transformer. data/embeddings + data/notes + data/vae → data/generator."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timbrel.distributed import join, lowers_precision
from timbrel.notes.noteset import NoteSet, publish_folder
from timbrel.pgesam import weights
from timbrel.pgesam.comparison import compare
from timbrel.pgesam.dataset import LOWEST_PITCH, MapNotes, map_notes
from timbrel.pgesam.evaluation import overfits
from timbrel.pgesam.generator import GeneratorShape
from timbrel.pgesam.generator_training import (
    GeneratorTraining,
    at_main_velocity,
    free_running,
    train_generator,
)
from timbrel.pgesam.plots import draw_curves, draw_pairs
from timbrel.pgesam.vae import load_vae
from timbrel.pgesam.vae_training import encode

if TYPE_CHECKING:
    from timbrel.params import Params
    from timbrel.tracking import Record

CURVES = ("loss", "loss.mse", "train.free_running_mse", "validation.free_running_mse")
PICTURES = 3
SPREAD_NOTES = 128


def run(params: Params, root: Path, record: Record) -> None:
    """Train the generator against the frozen map; write its weights."""
    settings = params.generator
    record.dataset("embeddings", root / "data" / "embeddings")
    record.dataset("vae", root / "data" / "vae")
    embeddings = np.load(root / "data" / "embeddings" / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    notes = map_notes(NoteSet.open(root / "data" / "notes").notes, velocity=None)
    vae, _ = load_vae(root / "data" / "vae")
    with join(params.hardware.device) as group:
        device = group.device
        vae = vae.to(device)
        notes, encoded = at_main_velocity(notes, encode(vae, embeddings, notes.row, device))
        shape = GeneratorShape(
            width=settings.width,
            heads=settings.heads,
            condition_layers=settings.condition_layers,
            decoder_layers=settings.decoder_layers,
            feedforward=settings.feedforward,
            frames=settings.frames,
            frames_per_token=settings.frames_per_token,
            dimensions=embeddings.shape[2],
            dropout=settings.dropout,
            map_dimensions=vae.shape.map_dimensions,
        )
        training = GeneratorTraining(
            steps=settings.steps,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup_steps,
            frame_weight=settings.frame_weight,
            condition_noise=settings.condition_noise,
            input_noise=settings.input_noise * _spread(embeddings, notes),
            input_dropout=settings.input_dropout,
            evaluate_every=settings.evaluate_every,
            seed=params.seed,
        )
        history: list[tuple[int, dict[str, float]]] = []

        def report(step: int, metrics: dict[str, float]) -> None:
            history.append((step, metrics))
            record.metrics(metrics, step=step)

        generator = train_generator(
            embeddings,
            notes,
            encoded,
            shape=shape,
            training=training,
            report=report,
            device=device,
            checkpoint=group.same(record.checkpoint),
            group=group,
            bfloat16=lowers_precision(params.hardware.precision, device),
        )
    if not group.leads:
        return

    final = compare(generator, vae, embeddings, notes, encoded, device, seed=params.seed)
    if "validation.embedding_mse.transformer" in final:
        errors = (final["train.embedding_mse.transformer"], final["validation.embedding_mse.transformer"])
        final["alarm.overfits"] = float(overfits(*errors))
    record.metrics(final)
    record.figure("curves", draw_curves(history, CURVES))
    shown = np.random.default_rng(params.seed).permutation(np.flatnonzero(notes.split != "test"))[:PICTURES]
    truth = np.asarray(embeddings[notes.row[shown], : shape.frames], dtype=np.float32)
    written = free_running(generator, encoded.mu[shown], notes.pitch[shown], device, notes.velocity[shown])
    titles = [
        f"{notes.instruments[notes.instrument[i]]}, MIDI {LOWEST_PITCH + notes.pitch[i]}" for i in shown
    ]
    record.figure("generated", draw_pairs(truth, written, titles))

    target = root / "data" / "generator"
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".generator.", dir=target.parent))
    learnt = notes.velocity[notes.split == "train"]
    facts = {"seed": params.seed, "velocities": [int(learnt.min()), int(learnt.max())]}
    weights.save(generator, folder, "generator", facts)
    publish_folder(folder, target)


def _spread(embeddings: np.ndarray, notes: MapNotes) -> float:
    """Standard deviation of the training notes' embeddings, over a few of them: near 1 for our own codec only."""
    rows = notes.of("train").row
    return float(np.std(embeddings[rows[:: max(1, len(rows) // SPREAD_NOTES)]].astype(np.float32)))
