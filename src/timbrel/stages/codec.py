"""Stage ``codec``: train the magnitude codec, judge it on instruments it has never heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from timbrel.codec.evaluate import evaluate
from timbrel.codec.in_process import TorchModels
from timbrel.codec.plots import spectrogram_pair
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.codec.storage import save_codec
from timbrel.codec.train import CodecTraining, Notes, train_codec, validation_losses
from timbrel.errors import DataError
from timbrel.notes.noteset import NoteSet
from timbrel.params import Params
from timbrel.pitch.estimate import estimate
from timbrel.tracking import Record

HELD_OUT = ("validation", "test")


def run(params: Params, root: Path, record: Record) -> None:
    """data/notes (and data/patches, when named) -> data/codec."""
    settings = params.codec
    sets: dict[str, NoteSet] = {name: NoteSet.open(root / "data" / name) for name in settings.sources}
    for name in sets:
        record.dataset(name, root / "data" / name)
    train = [Notes(notes.audio, notes.select(split="train")) for notes in sets.values()]
    held = {name: notes.select(split=HELD_OUT) for name, notes in sets.items()}
    if not any(len(rows) for rows in held.values()):
        raise DataError("no held-out note: give data/notes a validation or test split")
    held_out = [Notes(sets[name].audio, rows) for name, rows in held.items()]

    network = train_codec(
        train,
        CodecTraining(
            hidden=settings.hidden,
            steps=settings.steps,
            batch_frames=settings.batch_frames,
            learning_rate=settings.learning_rate,
            seed=params.seed,
        ),
        report=lambda step, metrics: record.metrics(metrics, step=step),
        validate=lambda network: validation_losses(network, held_out, params.seed),
        checkpoint=record.checkpoint,
    )

    codec = MagnitudeCodecRuntime(TorchModels(network))
    figures: dict[str, float] = {}
    rng = np.random.default_rng(params.seed)
    for name, notes in sets.items():
        for split, rows in (("train", notes.select(split="train")), ("heldout", held[name])):
            if len(rows):
                some = np.sort(rng.choice(rows, min(settings.validation_notes, len(rows)), replace=False))
                audio = (notes.float_audio([int(row)])[0] for row in some)
                quality = evaluate(codec, audio, lambda sound: estimate(sound, 24_000).midi)
                figures |= quality.metrics(f"{split}_{name}_")
    record.metrics(figures)

    name, rows = next((name, rows) for name, rows in held.items() if len(rows))
    example = sets[name].notes[int(rows[len(rows) // 2])]
    sound = sets[name].float_audio([example.row])[0]
    record.figure("spectrograms", spectrogram_pair(example.note_id, sound, codec.decode(codec.encode(sound))))
    save_codec(
        network, root / "data" / "codec", {"training": settings.model_dump(mode="json"), "figures": figures}
    )
