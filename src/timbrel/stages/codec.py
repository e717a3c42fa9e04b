"""Stage ``codec``: take trained weights (ours or EnCodec's) or train; judge the codec on instruments it never heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timbrel.codec.encodec import PUBLISHED_RANGE
from timbrel.codec.encodec_weights import NOTICE, find_weights, read_weights, save_encodec
from timbrel.codec.evaluate import evaluate
from timbrel.codec.in_process import TorchModels
from timbrel.codec.kinds import EncodecModels
from timbrel.codec.network import MagnitudeCodec
from timbrel.codec.plots import spectrogram_pair
from timbrel.codec.runtime import Codec, EncodecRuntime, MagnitudeCodecRuntime
from timbrel.codec.storage import describe, load_codec, save_codec
from timbrel.codec.train import CodecTraining, Notes, train_codec, validation_losses
from timbrel.errors import DataError
from timbrel.notes.noteset import NoteSet
from timbrel.pitch.estimate import estimate
from timbrel.published import cache_folder
from timbrel.training import pick_device

if TYPE_CHECKING:
    from timbrel.params import Params
    from timbrel.tracking import Record

HELD_OUT = ("validation", "test")
# Writes the codec into a folder, with what is to be remembered of its making.
Save = Callable[[Path, Mapping[str, Any]], None]


def run(params: Params, root: Path, record: Record) -> None:
    """data/notes (and data/patches, when named) -> data/codec."""
    settings = params.codec
    sets: dict[str, NoteSet] = {name: NoteSet.open(root / "data" / name) for name in settings.sources}
    for name in sets:
        record.dataset(name, root / "data" / name)
    held = {name: notes.select(split=HELD_OUT) for name, notes in sets.items()}
    if not any(len(rows) for rows in held.values()):
        raise DataError("no held-out note: give data/notes a validation or test split")
    codec, save = (
        _encodec(params, root) if settings.kind == "encodec" else _trained(params, root, sets, held, record)
    )
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
    if settings.kind == "encodec":
        # Nothing was trained: the curve that every training leaves is this one point.
        record.metrics({"heldout_lsd": figures[f"heldout_{name}_lsd_db"]}, step=0)
    example = sets[name].notes[int(rows[len(rows) // 2])]
    sound = sets[name].float_audio([example.row])[0]
    record.figure("spectrograms", spectrogram_pair(example.note_id, sound, codec.decode(codec.encode(sound))))
    save(root / "data" / "codec", {"figures": figures})


def _trained(
    params: Params,
    root: Path,
    sets: Mapping[str, NoteSet],
    held: Mapping[str, np.ndarray],
    record: Record,
) -> tuple[Codec, Save]:
    """The magnitude codec: the weights that are named, or trained on what is not held out."""
    settings = params.codec
    train = [Notes(notes.audio, notes.select(split="train")) for notes in sets.values()]
    held_out = [Notes(sets[name].audio, rows) for name, rows in held.items()]

    def validate(network: MagnitudeCodec) -> dict[str, float]:
        return validation_losses(network, held_out, params.seed)

    if settings.weights is not None:
        # Reading checks the sha256 of the weights' own description.
        network = load_codec(root / settings.weights)
        record.dataset("weights", root / settings.weights)
        record.metrics(validate(network), step=0)
        origin = {"weights": settings.weights, **describe(root / settings.weights)["record"]}
    else:
        origin = {"training": settings.model_dump(mode="json")}
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
            validate=validate,
            checkpoint=record.checkpoint,
        )
    codec = MagnitudeCodecRuntime(TorchModels(network))
    return codec, lambda folder, made: save_codec(network, folder, {**origin, **made})


def _encodec(params: Params, root: Path) -> tuple[Codec, Save]:
    """EnCodec with the weights that the user supplies, its embeddings in the published range."""
    path = root / find_weights(params.codec.weights or "", cache_folder())
    weights = read_weights(path, embedding_range=PUBLISHED_RANGE)
    print(f"[codec] {NOTICE}", flush=True)
    codec = EncodecRuntime(EncodecModels(weights.network.to(pick_device())))
    return codec, lambda folder, made: save_encodec(weights, folder, made)
