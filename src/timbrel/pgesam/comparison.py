"""The generator beside its two rivals, on one split each: the VAE's own decoder, and the mean of map neighbours."""

from __future__ import annotations

import numpy as np
import torch

from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.evaluation import embedding_mse, nearest_mean, pitch_accuracy
from timbrel.pgesam.generator import Generator
from timbrel.pgesam.generator_training import free_running
from timbrel.pgesam.vae import Vae
from timbrel.pgesam.vae_training import Encoded

SAMPLE = 256


def compare(
    generator: Generator,
    vae: Vae,
    embeddings: np.ndarray,
    notes: MapNotes,
    encoded: Encoded,
    device: torch.device,
    *,
    seed: int,
) -> dict[str, float]:
    """Per split, over at most 256 notes drawn by ``seed``:

    ``<split>.embedding_mse.{transformer,vae,nn_map}`` over the frames that the VAE sees, ``<split>.free_running_mse``
    over the whole note, and ``<split>.pitch_accuracy_head``: the VAE's pitch head on what the generator wrote.
    """
    figures: dict[str, float] = {}
    for split in ("train", "validation", "test"):
        members = np.flatnonzero(notes.split == split)
        if not len(members):
            continue
        chosen = np.sort(np.random.default_rng(seed).permutation(members)[:SAMPLE])
        truth = np.asarray(embeddings[notes.row[chosen], : generator.shape.frames], dtype=np.float32)
        written = free_running(generator, encoded.mu[chosen], notes.pitch[chosen], device)
        seen = vae.shape.frames
        with torch.no_grad():
            pitch = torch.from_numpy(notes.pitch[chosen]).to(device)
            decoded = vae.decoder(torch.from_numpy(encoded.mu[chosen]).to(device), pitch).cpu().numpy()
            heard = vae.encoder(torch.from_numpy(written[:, :seen]).to(device))[2].cpu().numpy()
        figures |= {
            f"{split}.free_running_mse": embedding_mse(written, truth),
            f"{split}.embedding_mse.transformer": embedding_mse(written[:, :seen], truth[:, :seen]),
            f"{split}.embedding_mse.vae": embedding_mse(decoded, truth[:, :seen]),
            f"{split}.embedding_mse.nn_map": embedding_mse(
                _neighbours(embeddings, notes, encoded, chosen, seen), truth[:, :seen]
            ),
            f"{split}.pitch_accuracy_head": pitch_accuracy(heard, notes.pitch[chosen]),
        }
    return figures


def _neighbours(
    embeddings: np.ndarray, notes: MapNotes, encoded: Encoded, chosen: np.ndarray, frames: int
) -> np.ndarray:
    """NN-Map for entries ``chosen``: the mean of the nearest training notes of that pitch, never the note itself."""
    answers = []
    for entry in chosen:
        known = np.flatnonzero((notes.split == "train") & (notes.pitch == notes.pitch[entry]))
        known = known[known != entry]
        if not len(known):
            answers.append(np.zeros((frames, embeddings.shape[2]), dtype=np.float32))
            continue
        answers.append(
            nearest_mean(encoded.mu[known], embeddings[notes.row[known], :frames], encoded.mu[[entry]])[0]
        )
    return np.stack(answers)
