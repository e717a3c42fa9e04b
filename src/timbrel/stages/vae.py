"""Stage ``vae``: the timbre map. data/embeddings + data/notes + data/codec → data/vae."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timbrel.codec.spectrum_weights import spectrum_weights
from timbrel.distributed import join, lowers_precision
from timbrel.files import atomic_write
from timbrel.notes.noteset import NoteSet, publish_folder
from timbrel.pgesam import weights
from timbrel.pgesam.curriculum import Curriculum
from timbrel.pgesam.dataset import MapNotes, map_notes
from timbrel.pgesam.evaluation import family_accuracy, map_statistics
from timbrel.pgesam.plots import draw_curves, draw_map
from timbrel.pgesam.vae import VaeShape
from timbrel.pgesam.vae_training import VaeTraining, encode, evaluate, train_vae

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from timbrel.params import Params
    from timbrel.tracking import Record

CURVES = (
    "loss", "loss.reconstruction", "loss.neighbour", "loss.regularisation", "loss.kl", "loss.pitch", "loss.family",
    "loss.instrument", "validation.v_inst_over_v_pitch", "validation.pitch_accuracy", "validation.embedding_mse",
    "validation.stretch",
)  # fmt: skip
AXES = ("x", "y", "z", "w")


def run(params: Params, root: Path, record: Record) -> None:
    """Train the VAE; write weights, every note's map point (positions.npy) and every instrument's mean point."""
    record.dataset("embeddings", root / "data" / "embeddings")
    note_set = NoteSet.open(root / "data" / "notes")
    embeddings = np.load(root / "data" / "embeddings" / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    notes = map_notes(note_set.notes, velocity=params.notes.velocity)
    spectrum = spectrum_weights(root / "data" / "codec")
    shape, training, curriculum = configure(params, notes, dimensions=embeddings.shape[2], spectrum=spectrum)
    history: list[tuple[int, dict[str, float]]] = []

    def report(step: int, metrics: dict[str, float]) -> None:
        history.append((step, metrics))
        record.metrics(metrics, step=step)

    with join(params.hardware.device) as group:
        device = group.device
        vae = train_vae(
            embeddings,
            notes,
            shape=shape,
            training=training,
            curriculum=curriculum,
            report=report,
            device=device,
            spectrum=spectrum,
            checkpoint=group.same(record.checkpoint),
            group=group,
            bfloat16=lowers_precision(params.hardware.precision, device),
        )
    if not group.leads:
        return

    final: dict[str, float] = {
        "notes_used": float(len(notes)),
        "notes_left_out": float(len(note_set.select(velocity=params.notes.velocity)) - len(notes)),
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
    _write_instruments(folder / "instruments.csv", note_set, params.notes.velocity, positions)
    weights.save(
        vae, folder, "vae", {"seed": params.seed, "instruments": notes.instruments[: shape.instruments]}
    )
    publish_folder(folder, target)


def configure(
    params: Params, notes: MapNotes, *, dimensions: int, spectrum: Mapping[str, Tensor] | None
) -> tuple[VaeShape, VaeTraining, Curriculum]:
    """What ``train_vae`` is given for these settings, these notes, embeddings of ``dimensions`` numbers a frame and the
    codec's decoder (``spectrum_weights``)."""
    settings = params.vae
    shape = VaeShape(
        instruments=int(notes.of("train").instrument.max()) + 1,
        frames=settings.frames,
        dimensions=dimensions,
        map_dimensions=settings.map_dimensions,
        channels=tuple(settings.channels),
        hidden=tuple(settings.hidden),
        head_width=settings.head_width,
        dropout=settings.dropout,
        spectrum_hidden=0 if spectrum is None else len(spectrum["learned.0.weight"]),
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
        mixed_share=settings.mixed_share,
        decoded_notes=settings.decoded_notes,
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
    return shape, training, curriculum


def _write_instruments(path: Path, notes: NoteSet, velocity: int, positions: np.ndarray) -> None:
    """One line per instrument: the mean of the map points of its notes of this velocity."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["instrument", "family", "split", *AXES[: positions.shape[1]]])
        for instrument in notes.instruments:
            rows = notes.select(instrument=instrument, velocity=velocity)
            first = notes.notes[rows[0]]
            place = (f"{value:.6f}" for value in positions[rows].mean(0))
            writer.writerow([instrument, first.family, first.split, *place])
