"""Stage ``encoder``: take trained weights or train; measure them on patches they never heard."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from timbrel.encoders import published_search
from timbrel.encoders.batches import Sounds, join, prepare, some_of_each
from timbrel.encoders.storage import describe, describe_style, load, save, save_style
from timbrel.encoders.timbre import Shape, TimbreEncoder, build
from timbrel.encoders.training import Settings, train_encoder
from timbrel.encoders.validation import Validation
from timbrel.library.styles import save_whitening
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
    watched = validation(sets[1], params.seed)
    baselines = watched.baselines()
    record.metrics(baselines)
    if params.encoder.stage1 != "timbre":
        _published(params, root, watched, baselines, record)
        return
    encoder, origin, style = _taken(params, root, record) or _trained(params, sets, watched, record)
    figures = watched(encoder.network)
    # The curve that every training leaves is one point where nothing was trained.
    record.metrics(figures, step=0 if params.encoder.weights else params.encoder.steps)
    figures = baselines | figures
    record.metrics({**figures, "parameters": sum(parameter.numel() for parameter in encoder.parameters())})
    target = root / "data" / "encoder"
    built = Path(tempfile.mkdtemp(prefix=".encoder.", dir=target.parent))
    save(encoder.network, built, figures, origin)
    if encoder.style is not None:
        save_style(encoder.style, built, style["metrics"], style["origin"])
        save_whitening(built, encoder.style.whitening.numpy())
    publish_folder(built, target)
    record.artifact(target)


def _published(
    params: Params, root: Path, watched: Validation, baselines: dict[str, float], record: Record
) -> None:
    """Measure the networks that others published, and write down which they are: their files stay where they lie."""
    settings = params.encoder
    sources = published_search.find(settings.stage1, settings.stage2)
    encoder = published_search.open_published(settings.stage1, settings.stage2).to(pick_device())
    graph = published_search.graph(encoder)
    figures = watched.of(lambda clips: graph.run("", {"audio": clips}))
    record.metrics(figures, step=0)  # the curve that every training leaves
    record.metrics({**figures, "parameters": sum(parameter.numel() for parameter in encoder.parameters())})
    target = root / "data" / "encoder"
    built = Path(tempfile.mkdtemp(prefix=".encoder.", dir=target.parent))
    published_search.describe(built, sources, baselines | figures)
    publish_folder(built, target)


def _taken(
    params: Params, root: Path, record: Record
) -> tuple[TimbreEncoder, dict[str, Any], dict[str, Any]] | None:
    """The weights that are named, checked, their origin, and the style network's description; None where none are."""
    if params.encoder.weights is None:
        return None
    folder = root / params.encoder.weights
    record.dataset("weights", folder)
    encoder = load(folder)
    style = {} if encoder.style is None else describe_style(folder)
    return encoder, describe(folder)["origin"], style


def _trained(
    params: Params, sets: list[NoteSet], watched: Validation, record: Record
) -> tuple[TimbreEncoder, dict[str, Any], dict[str, Any]]:
    sounds = join([_sounds(notes, params.seed, resampled) for notes in sets for resampled in (False, True)])
    seed_everything(params.seed)
    settings = params.encoder
    stem, low, middle, high = settings.channels
    network = build(
        Shape(
            channels=(stem, low, middle, high),
            embedding_size=settings.embedding_size,
        )
    )
    losses: list[tuple[int, float]] = []

    def report(step: int, metrics: dict[str, float]) -> None:
        record.metrics(metrics, step=step)
        if "stage1_loss" in metrics:
            losses.append((step, metrics["stage1_loss"]))

    train_encoder(
        network,
        sounds,
        Settings(
            steps=settings.steps,
            batch_instruments=settings.batch_instruments,
            learning_rate=settings.learning_rate,
            temperature=settings.temperature,
            scaffold=0,  # there is no teacher
            scaffold_weight=0.0,
            near_pitch_share=settings.near_pitch_share,
            seed=params.seed,
        ),
        report=report,
        validate=watched,
        device=pick_device(),
        checkpoint=record.checkpoint,
    )
    record.metrics(
        {
            "training_notes": len(sounds.instrument),
            "training_instruments": int(sounds.instrument.max()) + 1,
        }
    )
    record.figure("losses", _loss_figure(losses))
    return TimbreEncoder(network), {"training": settings.model_dump(mode="json")}, {}


def validation(patches: NoteSet, seed: int) -> Validation:
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


def _loss_figure(losses: list[tuple[int, float]]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="contrastive loss")
    axes.plot(*zip(*losses, strict=True))
    return figure
