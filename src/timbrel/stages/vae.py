"""Stage ``vae``: the timbre map. data/embeddings + data/notes → data/vae."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timbrel.files import atomic_write
from timbrel.notes.noteset import NoteSet, publish_folder
from timbrel.pgesam import weights
from timbrel.pgesam.curriculum import Curriculum
from timbrel.pgesam.dataset import map_notes
from timbrel.pgesam.evaluation import family_accuracy, map_statistics
from timbrel.pgesam.plots import draw_curves, draw_map
from timbrel.pgesam.vae import VaeShape
from timbrel.pgesam.vae_training import VaeTraining, encode, evaluate, train_vae
from timbrel.training import pick_device

if TYPE_CHECKING:
    from timbrel.params import Params
    from timbrel.tracking import Record

CURVES = (
    "loss", "loss.reconstruction", "loss.neighbour", "loss.regularisation", "loss.kl", "loss.pitch", "loss.family",
    "loss.instrument", "validation.v_inst_over_v_pitch", "validation.pitch_accuracy", "validation.embedding_mse",
    "validation.stretch",
)  # fmt: skip


def run(params: Params, root: Path, record: Record) -> None:
    """Train the VAE; write weights, every note's map point (positions.npy) and every instrument's mean point."""
    settings = params.vae
    record.dataset("embeddings", root / "data" / "embeddings")
    note_set = NoteSet.open(root / "data" / "notes")
    embeddings = np.load(root / "data" / "embeddings" / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    notes = map_notes(note_set.notes)
    learning = notes.of("train")
    shape = VaeShape(
        instruments=int(learning.instrument.max()) + 1,
        frames=settings.frames,
        dimensions=embeddings.shape[2],
        channels=tuple(settings.channels),
        hidden=tuple(settings.hidden),
        head_width=settings.head_width,
        dropout=settings.dropout,
    )
    training = VaeTraining(
        steps=settings.steps,
        batch_instruments=settings.batch_instruments,
        batch_pitches=settings.batch_pitches,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        margin=settings.margin,
        sample_scale=settings.sample_scale,
        input_noise=settings.input_noise,
        time_mask=settings.time_mask,
        evaluate_every=settings.evaluate_every,
        seed=params.seed,
    )
    curriculum = Curriculum(
        weights=settings.weights.model_dump(),
        family_schedule=settings.family_schedule,
        family_exponent=settings.family_exponent,
        neighbour_exponent=settings.neighbour_exponent,
        instrument_exponent=settings.instrument_exponent,
    )
    history: list[tuple[int, dict[str, float]]] = []

    def report(step: int, metrics: dict[str, float]) -> None:
        history.append((step, metrics))
        record.metrics(metrics, step=step)

    device = pick_device()
    vae = train_vae(
        embeddings,
        notes,
        shape=shape,
        training=training,
        curriculum=curriculum,
        report=report,
        device=device,
        checkpoint=record.checkpoint,
    )

    final: dict[str, float] = {
        "notes_used": float(len(notes)),
        "notes_left_out": float(len(note_set) - len(notes)),
    }
    for split in ("train", "validation", "test"):
        if len(chosen := notes.of(split)):
            final |= evaluate(vae, embeddings, chosen, device, split)
    mu = encode(vae, embeddings, notes.row, device).mu
    heldout = notes.split != "train"
    if heldout.any():
        final |= map_statistics(mu[heldout], notes.instrument[heldout], notes.pitch[heldout]).metrics(
            "heldout"
        )
        final["heldout.family_accuracy"] = family_accuracy(
            mu[~heldout], notes.family[~heldout], mu[heldout], notes.family[heldout]
        )
    statistics = map_statistics(mu[~heldout], notes.instrument[~heldout], notes.pitch[~heldout])
    for alarm in ("collapsed", "stretched", "pitch_leaks"):
        final[f"alarm.{alarm}"] = float(alarm in statistics.alarms())
    record.metrics(final)
    record.figure("map", draw_map(mu, notes))
    record.figure("curves", draw_curves(history, CURVES))

    target = root / "data" / "vae"
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".vae.", dir=target.parent))
    every_row = np.arange(len(note_set))
    positions = encode(vae, embeddings, every_row, device).mu
    with atomic_write(folder / "positions.npy") as handle:
        np.save(handle, positions)
    _write_instruments(folder / "instruments.csv", note_set, positions)
    weights.save(
        vae, folder, "vae", {"seed": params.seed, "instruments": notes.instruments[: shape.instruments]}
    )
    publish_folder(folder, target)


def _write_instruments(path: Path, notes: NoteSet, positions: np.ndarray) -> None:
    """One line per instrument: the mean of its notes' map points."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["instrument", "family", "split", "x", "y"])
        for instrument in notes.instruments:
            rows = notes.select(instrument=instrument)
            first = notes.notes[rows[0]]
            x, y = positions[rows].mean(0)
            writer.writerow([instrument, first.family, first.split, f"{x:.6f}", f"{y:.6f}"])
