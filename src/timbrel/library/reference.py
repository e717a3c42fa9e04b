"""The library as what queries are held against: are those that come still like what is looked through?

Queries are counted by the cell of the library that they fall into, twice:

- *embedding*: the cells of a spherical k-means of the stage-1 vectors of all renders. Not of those at one pitch: the
  encoder hears the same timbre at every pitch, and what is asked for at a pitch is a question of its own, the next.
- *pitch*: 00 has no pitch, 01 lies below the library; then the ranges of semitones around the pitches at which the
  library has its renders, each as far as the middle between two of them; and after the last what lies above it.

Both are worked out when a bundle is opened (20 ms for 5,000 renders) and are the same for the same bundle, so that the
counts of several workers add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timbrel.library import inverted
from timbrel.library.bundle import Bundle
from timbrel.library.index import semitone

CELLS = 16
HUB_SHARE = 0.05
# Renders that the cells are made of; of a larger library every n-th.
_RENDERS = 8192
# No pitch, below and above the library take a cell each.
_RANGES = CELLS - 3


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """``centroids`` float32 [at most 16, d1], l2-normalised; ``edges`` float64 [at most 14], rising MIDI pitches.

    ``embedding_shares`` and ``pitch_shares`` float64 [16]: what part of the renders lies in each cell, 1 in all.
    ``hubs``: ids of the patches that stand in many lists.
    """

    centroids: np.ndarray
    edges: np.ndarray
    embedding_shares: np.ndarray
    pitch_shares: np.ndarray
    hubs: frozenset[str]

    @classmethod
    def of(cls, bundle: Bundle) -> Reference:
        """The cells of a bundle's library, and how full they are."""
        step = -(-len(bundle.renders) // _RENDERS)
        vectors = bundle.index.vectors(np.arange(0, len(bundle.renders), step))
        centroids = inverted.means(vectors, CELLS, seed=0)
        pitches = np.array([render.f0_midi for render in bundle.renders])
        edges = pitch_edges(pitches[np.isfinite(pitches)])
        return cls(
            centroids=centroids,
            edges=edges,
            embedding_shares=_shares((vectors @ centroids.T).argmax(axis=1)),
            pitch_shares=_shares(
                np.where(np.isfinite(pitches), 1 + np.searchsorted(edges, pitches, side="right"), 0)
            ),
            hubs=hubs_of(bundle),
        )

    def embedding_cell(self, vector: np.ndarray) -> int:
        """The cell of a stage-1 vector float32 [d1], 0-15."""
        return int((self.centroids @ vector).argmax())

    def pitch_cell(self, midi: float | None) -> int:
        """The cell of a MIDI pitch, 0-15."""
        return 0 if midi is None else 1 + int(np.searchsorted(self.edges, midi, side="right"))


def pitch_edges(pitches: np.ndarray) -> np.ndarray:
    """Where the ranges of ``pitches`` float64 [n] (MIDI) begin and end, rising, float64 [at most 14].

    Between those quantiles of the semitones that differ: so a library that sounds at a few keys has a range for each,
    and one that sounds at all of them ranges that hold the same.
    """
    if not len(pitches):
        return np.empty(0)
    held = np.sort([semitone(pitch) for pitch in pitches.tolist()])
    middles = np.unique(held[(len(held) * (2 * np.arange(_RANGES) + 1)) // (2 * _RANGES)]).astype(np.float64)
    between = (middles[1:] + middles[:-1]) / 2
    if not len(between):
        return np.array([middles[0] - 0.5, middles[0] + 0.5])
    # The outermost reach as far outwards as inwards.
    first, last = 2 * middles[0] - between[0], 2 * middles[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def hubs_of(bundle: Bundle) -> frozenset[str]:
    """The twentieth of the patches, at least one, whose renders' neighbours are nearest (the median of their scales,
    ``library.hubness``); none where the library has no scales.

    Of the released library's searches for more like its own renders these 5 % took 7 % of the hits: how often a patch
    stands in a list and its scale rank in opposite order (Spearman's rho -0.71).
    """
    if bundle.scales is None:
        return frozenset()
    scales = [float(np.median(bundle.scales[bundle.rows_of(patch.patch_id)])) for patch in bundle.patches]
    count = max(1, round(HUB_SHARE * len(scales)))
    return frozenset(bundle.patches[number].patch_id for number in np.argsort(scales, kind="stable")[:count])


def _shares(cells: np.ndarray) -> np.ndarray:
    return np.bincount(cells, minlength=CELLS) / max(len(cells), 1)
