"""Stage ``embeddings``: every note of data/notes through the codec, for the VAE and the generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from timbrel.codec.kinds import open_codec
from timbrel.codec.network import DIMENSIONS
from timbrel.codec.spectrum import HOP
from timbrel.files import atomic_write
from timbrel.notes.noteset import NOTE_SAMPLES, NoteSet
from timbrel.params import Params
from timbrel.tracking import Record
from timbrel.training import pick_device


def run(params: Params, root: Path, record: Record) -> None:
    """data/notes, data/codec -> data/embeddings/embeddings.npy, float16 [notes, 300, 128], row by row."""
    notes = NoteSet.open(root / "data" / "notes")
    codec = open_codec(root / "data" / "codec", pick_device())
    embeddings = np.empty((len(notes), NOTE_SAMPLES // HOP, DIMENSIONS), dtype=np.float16)
    batch = params.embeddings.batch_notes
    for start in range(0, len(notes), batch):
        rows = np.arange(start, min(start + batch, len(notes)))
        embeddings[rows] = codec.encode_batch(notes.float_audio(rows))
        record.metrics({"notes_done": float(rows[-1] + 1)}, step=int(rows[-1] + 1))
    with atomic_write(root / "data" / "embeddings" / "embeddings.npy") as handle:
        np.save(handle, embeddings, allow_pickle=False)
    train = embeddings[notes.select(split="train")].astype(np.float32)
    record.metrics(
        {
            "notes": float(len(notes)),
            "train_mean_abs": float(np.abs(train.mean(axis=(0, 1))).mean()),
            "train_std": float(train.std(axis=(0, 1)).mean()),
            "largest": float(np.abs(embeddings).max()),
        }
    )
