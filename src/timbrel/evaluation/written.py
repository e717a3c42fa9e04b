"""What the generator and its two rivals write, at the places where they are judged: embeddings, not yet sound.

grid     every pitch of an instrument, at the instrument's place on the map (the mean of its notes' points)
sample   real notes, drawn by a seed: each written again at its own point and pitch, by all three
random   points spread evenly over the disc that holds the training instruments, pitches at random
walk     points on a straight line between neighbouring instruments, one pitch
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from timbrel.pgesam.comparison import nn_map
from timbrel.pgesam.dataset import PITCHES, MapNotes
from timbrel.pgesam.generator import Generator
from timbrel.pgesam.generator_training import velocity_of
from timbrel.pgesam.vae import Vae
from timbrel.pgesam.vae_training import Encoded

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Both networks on ``device``, the notes, their embeddings [N, 300, 128] (``notes.row`` points into them) and
    the frozen VAE's answer for each entry of ``notes``.
    """

    vae: Vae
    generator: Generator
    notes: MapNotes
    embeddings: np.ndarray
    encoded: Encoded
    device: torch.device

    @property
    def places(self) -> np.ndarray:
        """Every instrument's place on the map, the mean of its notes' points: [instruments, d]."""
        numbers = range(len(self.notes.instruments))
        return np.stack([self.encoded.mu[self.notes.instrument == number].mean(0) for number in numbers])

    @property
    def instrument_splits(self) -> np.ndarray:
        """Split of every instrument: str [instruments]."""
        return self._of_instruments(self.notes.split)

    @property
    def instrument_families(self) -> np.ndarray:
        """Family number of every instrument: int [instruments]."""
        return self._of_instruments(self.notes.family)

    def _of_instruments(self, values: np.ndarray) -> np.ndarray:
        _, first = np.unique(self.notes.instrument, return_index=True)
        return values[first]


def write(
    trained: Trained,
    position: np.ndarray,
    pitch: np.ndarray,
    *,
    frames: int,
    velocity: np.ndarray | None = None,
) -> np.ndarray:
    """The generator alone: position [n, d], pitch [n] in 0..24 → float32 [n, frames, 128].

    ``velocity`` [n] is MIDI's, 1..127; None is the map's for all.
    """
    parts = []
    for start in range(0, len(position), BATCH):
        part = slice(start, start + BATCH)
        at = torch.from_numpy(position[part].astype(np.float32)).to(trained.device)
        asked = torch.from_numpy(pitch[part].astype(np.int64)).to(trained.device)
        struck = () if velocity is None else (velocity_of(velocity[part], trained.device),)
        parts.append(trained.generator.generate(at, asked, *struck, frames=frames).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def decoded_by_vae(trained: Trained, position: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """The VAE's decoder: position [n, d], pitch [n] in 0..24 → float32 [n, vae frames, 128]."""
    parts = []
    for start in range(0, len(position), BATCH):
        part = slice(start, start + BATCH)
        at = torch.from_numpy(position[part].astype(np.float32)).to(trained.device)
        asked = torch.from_numpy(pitch[part].astype(np.int64)).to(trained.device)
        parts.append(trained.vae.decoder(at, asked).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def pitch_by_head(trained: Trained, embeddings: np.ndarray) -> np.ndarray:
    """What the VAE's pitch head reads in the first frames of [n, ≥ vae frames, 128]: int [n] in 0..24."""
    frames = trained.vae.shape.frames
    parts = []
    for start in range(0, len(embeddings), BATCH):
        batch = np.asarray(embeddings[start : start + BATCH, :frames], dtype=np.float32)
        parts.append(
            trained.vae.encoder(torch.from_numpy(batch).to(trained.device))[2].argmax(1).cpu().numpy()
        )
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """All pitches of some instruments: ``instrument`` and ``pitch`` (0..24) [n], ``embeddings`` [n, frames, 128]."""

    instrument: np.ndarray
    pitch: np.ndarray
    embeddings: np.ndarray


def grid(trained: Trained, instruments: np.ndarray, *, frames: int) -> Grid:
    """The generator at the places of ``instruments`` (numbers [m]), 25 pitches each."""
    instrument = np.repeat(instruments, PITCHES)
    pitch = np.tile(np.arange(PITCHES), len(instruments))
    written = write(trained, trained.places[instrument], pitch, frames=frames)
    return Grid(instrument=instrument, pitch=pitch, embeddings=written)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Real notes, written again. ``entries`` [n] of the MapNotes, each once; ``draws``: for every seed, which of
    them it drew. ``transformer`` [n, 300, 128], ``vae`` and ``nn_map`` [n, vae frames, 128], ``truth`` as the first.
    """

    entries: np.ndarray
    draws: tuple[np.ndarray, ...]
    truth: np.ndarray
    transformer: np.ndarray
    vae: np.ndarray
    nn_map: np.ndarray


def sample(trained: Trained, members: np.ndarray, *, count: int, seeds: tuple[int, ...]) -> Sample:
    """``count`` of the entries ``members`` for every seed (all of them, where there are fewer)."""
    drawn = [np.sort(np.random.default_rng(seed).permutation(members)[:count]) for seed in seeds]
    entries = np.unique(np.concatenate(drawn))
    notes, mu, frames = trained.notes, trained.encoded.mu, trained.generator.shape.frames
    return Sample(
        entries=entries,
        draws=tuple(np.searchsorted(entries, one) for one in drawn),
        truth=np.asarray(trained.embeddings[notes.row[entries], :frames], dtype=np.float32),
        transformer=write(trained, mu[entries], notes.pitch[entries], frames=frames),
        vae=decoded_by_vae(trained, mu[entries], notes.pitch[entries]),
        nn_map=nn_map(trained.embeddings, notes, mu, entries, frames=trained.vae.shape.frames),
    )


def random_notes(trained: Trained, count: int, *, seed: int) -> np.ndarray:
    """Whole notes [count, 300, 128] at random points of the training instruments' disc, at random pitches."""
    rng = np.random.default_rng(seed)
    places = trained.places[trained.instrument_splits == "train"]
    points = disc_points(count, places.shape[1], radius=float(np.linalg.norm(places, axis=1).max()), rng=rng)
    pitch = rng.integers(PITCHES, size=count)
    return write(trained, points, pitch, frames=trained.generator.shape.frames)


def disc_points(count: int, dimensions: int, *, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Points [count, dimensions] spread evenly over the ball of ``radius`` around the origin."""
    direction = rng.standard_normal((count, dimensions))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points: np.ndarray = radius * rng.random((count, 1)) ** (1.0 / dimensions) * direction
    return points


def walks(trained: Trained, pairs: np.ndarray, *, steps: int, pitch: int, frames: int) -> np.ndarray:
    """Embeddings [pairs, steps + 1, frames, 128] on the straight lines between the places of ``pairs`` [m, 2]."""
    first, last = trained.places[pairs[:, 0]], trained.places[pairs[:, 1]]
    along = np.linspace(0.0, 1.0, steps + 1)[None, :, None]
    points = first[:, None] * (1.0 - along) + last[:, None] * along
    flat = points.reshape(-1, points.shape[2])
    written = write(trained, flat, np.full(len(flat), pitch), frames=frames)
    return written.reshape(len(pairs), steps + 1, frames, -1)
