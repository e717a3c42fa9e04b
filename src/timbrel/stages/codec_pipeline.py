"""The codec's own pipeline, ``pipelines/codec``: a wider corpus and a longer training than the default one allows.

    python -m timbrel.stages.codec_pipeline corpus     -> data/codec_corpus/{wide,synthetic}
    python -m timbrel.stages.codec_pipeline train      -> data/codec_weights
    python -m timbrel.stages.codec_pipeline ship       -> weights/codec, which params.yaml's codec.weights names

No output of ``ship`` is DVC's: to the default pipeline the weights are an input, in Git, not something to rebuild.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from timbrel.codec.network import MagnitudeCodec
from timbrel.codec.storage import DESCRIPTION, WEIGHTS, load_codec, save_codec
from timbrel.codec.train import CodecTraining, Notes, train_codec, validation_losses
from timbrel.notes.codec_corpus import collect_tones, collect_wide, training_rows
from timbrel.notes.noteset import NoteSet
from timbrel.params import Amount, Midi, Positive, Rate, Section, Velocity, load
from timbrel.stages import apart
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking import Record

SETTINGS = Path("pipelines/codec/params.yaml")
CORPUS = Path("data/codec_corpus")
TRAINED = Path("data/codec_weights")
SHIPPED = Path("weights/codec")
SOURCE = (
    "trained by pipelines/codec of this repository on soundfont presets (FluidSynth), generated DX7 voices (Dexed) "
    "and synthetic tones; no recording and no preset of anybody's but the soundfonts'"
)
LICENCE = "CC0-1.0"


class Corpus(Section):
    """``pitches`` are those of presets and FM voices, ``tone_pitches`` the span of the synthetic tones."""

    seed: Annotated[int, Field(ge=0)]
    pitches: Annotated[tuple[Midi, ...], Field(min_length=4)]
    velocity: Velocity
    velocity_notes: Annotated[int, Field(ge=0)]
    velocities: tuple[Velocity, Velocity]
    fm_instruments: Positive
    tones: Positive
    tone_notes: Positive
    tone_pitches: tuple[Midi, Midi]


class Round(Section):
    """From the full learning rate to none; a synthetic tone is drawn ``tones_weight`` times as often as a note."""

    steps: Positive
    corrections: Annotated[int, Field(ge=0)]
    learning_rate: Rate
    tones_weight: Positive
    latent_noise: Amount
    peaks_weight: Amount


class Training(Section):
    """Rounds, each of which goes on from the one before (warm restarts: Loshchilov and Hutter 2017)."""

    seed: Annotated[int, Field(ge=0)]
    batch_frames: Positive
    hidden: Positive
    rounds: Annotated[tuple[Round, ...], Field(min_length=1)]


class Settings(Section):
    """``pipelines/codec/params.yaml``."""

    corpus: Corpus
    training: Training


def corpus(settings: Settings, root: Path, record: Record) -> None:
    """-> data/codec_corpus. Which presets: as ``notes`` of the default profile says."""
    wanted, notes = settings.corpus, load(root / "params.yaml").notes
    wide = collect_wide(
        root / CORPUS / "wide",
        seed=wanted.seed,
        pitches=wanted.pitches,
        velocity=wanted.velocity,
        velocity_notes=wanted.velocity_notes,
        velocities=wanted.velocities,
        general_midi=notes.general_midi,
        soundfonts=notes.soundfonts,
        max_presets=notes.max_presets,
        fm_count=wanted.fm_instruments,
        pitched_share=notes.pitched_share,
        duplicate_db=notes.duplicate_db,
        progress=every_few_seconds(record),
    )
    tones = collect_tones(
        root / CORPUS / "synthetic",
        tones=wanted.tones,
        notes_each=wanted.tone_notes,
        pitches=wanted.tone_pitches,
        progress=every_few_seconds(record),
    )
    for name, report in (("wide", wide), ("synthetic", tones)):
        record.metrics({f"{name}_{count}": float(report[count]) for count in ("instruments", "notes")})


def train(settings: Settings, root: Path, record: Record) -> None:
    """data/notes, data/patches, data/codec_corpus -> data/codec_weights."""
    folders = {
        "notes": root / "data" / "notes",
        "patches": root / "data" / "patches",
        "wide": root / CORPUS / "wide",
        "synthetic": root / CORPUS / "synthetic",
    }
    sets = {name: NoteSet.open(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        record.dataset(name, folder)
    rows = {name: notes.select(split="train") for name, notes in sets.items()}
    rows["wide"] = training_rows(sets["wide"], sets["notes"])
    held_out = [Notes(notes.audio, notes.select(split=("validation", "test"))) for notes in sets.values()]
    wanted = settings.training
    network: MagnitudeCodec | None = None
    before = 0
    for index, each in enumerate(wanted.rounds):
        # A row that is named several times is drawn so many times as often.
        drawn = rows | {"synthetic": np.repeat(rows["synthetic"], each.tones_weight)}
        network = train_codec(
            [Notes(sets[name].audio, drawn[name]) for name in sets],
            CodecTraining(
                hidden=wanted.hidden,
                corrections=each.corrections,
                steps=each.steps,
                batch_frames=wanted.batch_frames,
                learning_rate=each.learning_rate,
                latent_noise=each.latent_noise,
                peaks_weight=each.peaks_weight,
                seed=wanted.seed + index,
            ),
            report=partial(_report, record, before),
            start=network,
            validate=lambda network: validation_losses(network, held_out, wanted.seed),
            report_every=100,
            checkpoint=record.checkpoint.with_suffix(f".{index}.pt"),
        )
        before += each.steps
    assert network is not None
    network.round_weights()
    figures = validation_losses(network, held_out, wanted.seed, count=10_000)
    record.metrics(figures)
    save_codec(
        network,
        root / TRAINED,
        {
            "source": SOURCE,
            "licence": LICENCE,
            "recipe": {
                "pipeline": "pipelines/codec/dvc.yaml",
                **settings.model_dump(mode="json"),
                "training_notes": {name: len(chosen) for name, chosen in rows.items()},
            },
            "figures": {name: round(value, 4) for name, value in figures.items()},
        },
    )


def _report(record: Record, before: int, step: int, metrics: dict[str, float]) -> None:
    record.metrics(metrics, step=before + step)


def ship(root: Path) -> None:
    """data/codec_weights -> weights/codec. Raises DataError when they are torn or over 16 MiB."""
    load_codec(root / TRAINED)
    apart.ship(
        root / TRAINED, root / SHIPPED, weights=WEIGHTS, description=DESCRIPTION, smaller="a smaller hidden"
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit status."""
    return apart.run_step(
        "codec",
        {"corpus": corpus, "train": train},
        settings=(SETTINGS, Settings),
        ship=ship,
        about=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
