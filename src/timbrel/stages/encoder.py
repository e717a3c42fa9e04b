"""Stage ``encoder``: train the timbre encoder on notes and patches, measure it on patches it never heard."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from timbrel.encoders.batches import Sounds, join, prepare, some_of_each
from timbrel.encoders.storage import save
from timbrel.encoders.timbre import build
from timbrel.encoders.training import Settings, train_encoder
from timbrel.encoders.validation import Validation
from timbrel.notes.noteset import NoteSet, publish_folder
from timbrel.params import Params
from timbrel.tracking import Record
from timbrel.training import pick_device, seed_everything

RESAMPLED_NOTES = 6
"""Notes of each resampled instrument: enough to pair, and quick to make."""


def run(params: Params, root: Path, record: Record) -> None:
    """Reads data/notes and data/patches, writes data/encoder."""
    sets = [NoteSet.open(root / "data" / name) for name in ("notes", "patches")]
    for notes in sets:
        record.dataset(notes.folder.name, notes.folder)
    validation = _validation(sets[1], params.seed)
    baselines = validation.baselines()
    record.metrics(baselines)
    sounds = join([_sounds(notes, params.seed, resampled) for notes in sets for resampled in (False, True)])
    seed_everything(params.seed)
    network = build(params.encoder.channels, params.encoder.embedding_size)
    losses: list[tuple[int, float, float]] = []

    def report(step: int, metrics: dict[str, float]) -> None:
        record.metrics(metrics, step=step)
        if "stage1_loss" in metrics:
            losses.append((step, metrics["stage1_loss"], metrics["stage2_loss"]))

    train_encoder(
        network,
        sounds,
        Settings(
            steps=params.encoder.steps,
            batch_instruments=params.encoder.batch_instruments,
            learning_rate=params.encoder.learning_rate,
            temperature=params.encoder.temperature,
            style_weight=params.encoder.style_weight,
            near_pitch_share=params.encoder.near_pitch_share,
            seed=params.seed,
        ),
        report=report,
        validate=validation,
        device=pick_device(),
        checkpoint=record.checkpoint,
    )
    figures = baselines | validation(network)
    counts = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training_notes": len(sounds.instrument),
        "training_instruments": int(sounds.instrument.max()) + 1,
    }
    record.metrics({**figures, **counts})
    record.figure("losses", _loss_figure(losses))
    target = root / "data" / "encoder"
    built = Path(tempfile.mkdtemp(prefix=".encoder.", dir=target.parent))
    save(network, built, figures)
    publish_folder(built, target)
    record.artifact(target)


def _validation(patches: NoteSet, seed: int) -> Validation:
    """Patches of validation look themselves up among those of validation and training."""
    rows = patches.select(split=("validation", "train"))
    chosen = [patches.notes[row] for row in rows]
    return Validation(
        lambda i: patches.float_audio(rows[i]),
        labels=np.array([note.instrument for note in chosen]),
        pitches=np.array([note.pitch for note in chosen], np.float64),
        asked=np.flatnonzero([note.split == "validation" for note in chosen]),
        seed=seed,
    )


def _sounds(notes: NoteSet, seed: int, resampled: bool) -> Sounds:
    """The training notes of one set: nothing of validation, test or the library."""
    rows = notes.select(split="train")
    if resampled:
        rows = rows[
            some_of_each(np.array([notes.notes[row].instrument for row in rows]), RESAMPLED_NOTES, seed)
        ]
    chosen = [notes.notes[row] for row in rows]
    sounding = [note.f0_midi if np.isfinite(note.f0_midi) else note.pitch for note in chosen]
    return prepare(
        lambda i: notes.float_audio(rows[i]),
        np.array([note.instrument for note in chosen]),
        np.array(sounding, np.float64),
        resampled=resampled,
        seed=seed,
    )


def _loss_figure(losses: list[tuple[int, float, float]]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="contrastive loss")
    steps, first, second = zip(*losses, strict=True)
    axes.plot(steps, first, label="stage 1")
    axes.plot(steps, second, label="stage 2")
    axes.legend()
    return figure
