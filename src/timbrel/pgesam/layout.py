"""A first map: where each training instrument starts, before the losses take over.

Seven losses on a two-dimensional bottleneck begin from a map in which everything lies on one spot, and sort the
instruments slowly: the published training takes 15,000 epochs, and on two cores there is time for some forty. So the
first steps also pull every note towards its instrument's place in a layout made from the embeddings alone, and that
pull fades out. (Measured on a quarter-width network after 250 steps, held-out V_inst / V_pitch: 0.055 with the layout,
about 4 without.)

The layout is exact t-SNE (van der Maaten and Hinton 2008) of the instruments' mean embeddings with the pitch's share
taken out, and then spread evenly over the disc: similar timbres lie close, nothing is stretched, no place is empty.
"""

from __future__ import annotations

import numpy as np

from timbrel.pgesam.dataset import MapNotes

SEGMENTS = 6
PERPLEXITY = 12.0
ITERATIONS = 600
LEARNING_RATE = 20.0
MOMENTUM = 0.8
EXAGGERATION = 4.0
RADIUS = 0.95
NOTES_AT_A_TIME = 256


def instrument_layout(embeddings: np.ndarray, notes: MapNotes, *, frames: int) -> np.ndarray:
    """Places [instruments, 2] in the unit disc for the instruments of ``notes``, in the order of their numbers.

    ``embeddings`` [N, ≥ frames, d]; ``notes`` must hold instruments 0..n-1, each with at least one note.
    """
    return spread_over_disc(tsne(instrument_means(embeddings, notes, frames=frames)))


def instrument_means(embeddings: np.ndarray, notes: MapNotes, *, frames: int) -> np.ndarray:
    """[instruments, 6 · d]: mean embedding in six stretches of time, each note relative to the mean of its pitch."""
    parts = []
    for start in range(0, len(notes), NOTES_AT_A_TIME):
        batch = np.asarray(embeddings[notes.row[start : start + NOTES_AT_A_TIME], :frames], dtype=np.float32)
        parts.append(np.stack([part.mean(1) for part in np.array_split(batch, SEGMENTS, axis=1)], axis=1))
    note_means = np.concatenate(parts).reshape(len(notes), -1)
    for pitch in np.unique(notes.pitch):
        note_means[notes.pitch == pitch] -= note_means[notes.pitch == pitch].mean(0)
    return np.stack([note_means[notes.instrument == i].mean(0) for i in np.unique(notes.instrument)])


def tsne(points: np.ndarray) -> np.ndarray:
    """[n, d] → [n, 2], deterministic: it starts from the first two principal components."""
    points = points.astype(np.float64)
    squared = np.maximum(_squared_distances(points), 0.0)
    joint = _affinities(squared, min(PERPLEXITY, max(2.0, (len(points) - 1) / 3)))
    centred = points - points.mean(0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    places = centred @ components[:2].T
    if places.shape[1] < 2:
        places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    places = places / max(float(places.std()), 1e-12) * 1e-2
    velocity = np.zeros_like(places)
    for iteration in range(ITERATIONS):
        kernel = 1.0 / (1.0 + _squared_distances(places))
        np.fill_diagonal(kernel, 0.0)
        wanted = joint * (EXAGGERATION if iteration < ITERATIONS // 4 else 1.0)
        pull = (wanted - kernel / kernel.sum()) * kernel
        gradient = 4.0 * (pull.sum(1)[:, None] * places - pull @ places)
        velocity = MOMENTUM * velocity - LEARNING_RATE * gradient
        places = places + velocity
        places -= places.mean(0)
    return places


def spread_over_disc(places: np.ndarray) -> np.ndarray:
    """Places [n, 2] with their directions kept (after whitening) and their radii made those of an even disc."""
    centred = places - places.mean(0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    whitened = centred @ vectors / np.sqrt(np.maximum(values, 1e-12))
    radius = np.linalg.norm(whitened, axis=1)
    rank = np.argsort(np.argsort(radius, kind="stable"), kind="stable")
    even = RADIUS * np.sqrt((rank + 0.5) / len(places))
    return whitened * (even / np.maximum(radius, 1e-12))[:, None]


def _squared_distances(points: np.ndarray) -> np.ndarray:
    squares = (points**2).sum(1)
    distances: np.ndarray = squares[:, None] + squares[None, :] - 2.0 * points @ points.T
    return distances


def _affinities(squared: np.ndarray, perplexity: float) -> np.ndarray:
    """Symmetric joint probabilities [n, n]; each row's bandwidth is found by bisection on its entropy."""
    count = len(squared)
    conditional = np.zeros_like(squared)
    for i in range(count):
        distances = np.delete(squared[i], i)
        distances = distances - distances.min()
        low, high = 0.0, np.inf
        precision = 1.0 / max(float(distances.mean()), 1e-12)
        for _ in range(60):
            weights = np.exp(-distances * precision)
            share = weights / weights.sum()
            entropy = -(share * np.log(np.maximum(share, 1e-300))).sum()
            if entropy > np.log(perplexity):
                low, precision = precision, precision * 2 if high == np.inf else (precision + high) / 2
            else:
                high, precision = precision, (low + precision) / 2
        conditional[i] = np.insert(share, i, 0.0)
    return (conditional + conditional.T) / (2.0 * count)
