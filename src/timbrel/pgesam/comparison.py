"""The generator beside its two rivals, on one split each: the VAE's own decoder, and the mean of map neighbours."""

from __future__ import annotations

import numpy as np
import torch

from timbrel.pgesam.dataset import MAIN_VELOCITY, MapNotes
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
    """Per split, over at most 256 notes of the main velocity (the map's, and so the rivals') drawn by ``seed``:

    ``<split>.embedding_mse.{transformer,vae,nn_map}`` over the frames that the VAE sees, ``<split>.free_running_mse``
    over the whole note, and ``<split>.pitch_accuracy_head``: the VAE's pitch head on what the generator wrote.
    """
    figures: dict[str, float] = {}
    for split in ("train", "validation", "test"):
        members = np.flatnonzero((notes.split == split) & (notes.velocity == MAIN_VELOCITY))
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
                nn_map(embeddings, notes, encoded.mu, chosen, frames=seen), truth[:, :seen]
            ),
            f"{split}.pitch_accuracy_head": pitch_accuracy(heard, notes.pitch[chosen]),
        }
    return figures


def nn_map(
    embeddings: np.ndarray, notes: MapNotes, mu: np.ndarray, chosen: np.ndarray, *, frames: int
) -> np.ndarray:
    """NN-Map for the entries ``chosen`` of ``notes``, whose map points are ``mu`` [len(notes), d]: the mean of the
    five nearest training notes of that pitch, never the note itself. [len(chosen), frames, 128]; zeros where there
    is no training note of a pitch.
    """
    answers = []
    for entry in chosen:
        alike = (notes.pitch == notes.pitch[entry]) & (notes.velocity == notes.velocity[entry])
        known = np.flatnonzero((notes.split == "train") & alike)
        known = known[known != entry]
        if not len(known):
            answers.append(np.zeros((frames, embeddings.shape[2]), dtype=np.float32))
            continue
        answers.append(nearest_mean(mu[known], embeddings[notes.row[known], :frames], mu[[entry]])[0])
    return np.stack(answers)
