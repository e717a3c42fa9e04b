"""The place whose note sounds most like a recording: a small search around the place that the map encoder names.

The map encoder names a place by what a note is; the generator makes of a place what it has learned to. Between the two
lies an error that can be measured for any place: generate two seconds of the note at the recording's pitch, decode its
magnitudes (no phase is needed), and compare. The generator is cheap in batches, so a few dozen places are tried in two
calls: the whole neighbourhood first, then closely around the best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from timbrel.codec import spectrum

FRAMES = 150
"""Frames compared: all that the map encoder hears. One second costs half as much and names worse places."""

WIDE_RINGS = ((0.1, 6), (0.22, 8), (0.4, 9))  # (radius on the map, places) around the named place
CLOSE_RINGS = ((0.03, 5), (0.06, 7))  # and around the best of the first round

# (places [n, 2], MIDI key, frames) -> their log magnitudes [n, frames, 1025] in dB
Spectra = Callable[[np.ndarray, int, int], np.ndarray]


class Refined(NamedTuple):
    """``place`` [2]; its distance from the recording, and that of the place it started from (LSD, dB)."""

    place: np.ndarray
    distance: float
    started_at: float


def refine(spectra: Spectra, recording: np.ndarray, place: np.ndarray, key: int, radius: float) -> Refined:
    """Search around ``place`` [2] for the place nearest to ``recording`` (dB, [150, 1025], from its onset).

    ``radius``: places beyond it are not tried. The answer is ``place`` itself where nothing around is nearer.
    """
    target = recording[:FRAMES]
    best = np.asarray(place, dtype=np.float64)
    distance = started_at = np.inf
    for number, rings in enumerate((WIDE_RINGS, CLOSE_RINGS)):
        places = around(best, rings, radius)
        if number == 0:
            places = np.concatenate([best[None], places])
        distances = loudness_matched_distances(target, spectra(places, key, len(target)))
        if number == 0:
            started_at = float(distances[0])
        nearest = int(np.argmin(distances))
        if distances[nearest] < distance:
            best, distance = places[nearest], float(distances[nearest])
    return Refined(best, distance, started_at)


def around(place: np.ndarray, rings: tuple[tuple[float, int], ...], radius: float) -> np.ndarray:
    """Places [n, 2] on rings around ``place``, no further than ``radius`` from the map's centre."""
    places = []
    for number, (distance, count) in enumerate(rings):
        angles = 2.0 * np.pi * (np.arange(count) + 0.5 * (number % 2)) / count
        places.append(place + distance * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    everything = np.concatenate(places)
    lengths = np.maximum(np.linalg.norm(everything, axis=1, keepdims=True), 1e-12)
    return everything * np.minimum(1.0, radius / lengths)


def loudness_matched_distances(target: np.ndarray, notes: np.ndarray) -> np.ndarray:
    """LSD in dB of each of ``notes`` [n, frames, bins] from ``target`` [frames, bins], brought to its power first."""
    power = float(np.square(spectrum.to_magnitude(target)).sum())
    distances = np.empty(len(notes))
    for number, note in enumerate(notes):
        magnitude = spectrum.to_magnitude(note)
        own = float(np.square(magnitude).sum())
        gain = np.float32(np.sqrt(power / own)) if own > 0.0 else np.float32(1.0)
        distances[number] = spectrum.log_spectral_distance(target, spectrum.to_decibels(magnitude * gain))
    return distances
