"""The library as a search sees it, by the bundle's encoder and by others: which renders a query is compared with, and
how far each of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from timbrel.audio import Audio
from timbrel.encoders import frontend
from timbrel.encoders.baselines import BASELINES
from timbrel.engine.engine import Engine
from timbrel.errors import DataError
from timbrel.library.coverage import Coverage

if TYPE_CHECKING:
    from timbrel.evaluation.encoders import EmbedAll

Progress = Callable[[str, int, int], None]
BATCH = 64
# The gate opens for as many patches as are looked at.
DEEPEST = 10


def plain_baselines(clips: np.ndarray) -> dict[str, np.ndarray]:
    """The vectors of the encoders that need no weights, by name."""
    return {name: encoder(clips) for name, encoder in BASELINES.items()}


class Gallery:
    """Distances from a recording to every render of the library, by every encoder."""

    def __init__(
        self,
        engine: Engine,
        library: Iterable[tuple[int, np.ndarray]],
        beside: EmbedAll = plain_baselines,
        *,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        """``library`` gives (row, note int16 [samples]) of each render. ``beside``: encoders beside the bundle's own.

        Raises DataError when notes are missing.
        """
        self._engine = engine
        self._beside = beside
        bundle = engine.bundle
        self._coverage = Coverage(bundle.renders, bundle.patch_of)
        self._vectors = _vectors(library, len(bundle.renders), beside, progress)
        self._number = {patch.patch_id: number for number, patch in enumerate(bundle.patches)}

    def number(self, patch_id: str) -> int:
        """The number that ``Bundle.patch_of`` has for a patch."""
        return self._number[patch_id]

    def candidates(self, midi: float | None) -> np.ndarray:
        """Rows of the renders that the shipped gate admits; all of them without a pitch."""
        bundle = self._engine.bundle
        if midi is None:
            return np.arange(len(bundle.renders))
        window = self._coverage.window(midi, least=bundle.manifest.search.window_semitones, patches=DEEPEST)
        return bundle.index.ids_within(midi, window)

    def distances(self, audio: Audio) -> dict[str, np.ndarray]:
        """1 − cosine to every render, float32 [renders], by encoder: ``stage1``, ``stage2``, and those beside."""
        bundle = self._engine.bundle
        stage1, stage2 = self._engine.embed(audio)
        everything = bundle.index.query(stage1, pitch=None, window=0, k=len(bundle.renders))
        found = {"stage1": np.empty(len(bundle.renders), dtype=np.float32)}
        found["stage1"][everything.ids] = everything.distances
        found["stage2"] = bundle.styles.distances(stage2, np.arange(len(bundle.renders)))
        for name, vectors in self._beside(frontend.clip(audio.samples)[None]).items():
            found[name] = 1.0 - self._vectors[name] @ _unit(vectors)[0]
        return found


def _vectors(
    library: Iterable[tuple[int, np.ndarray]], renders: int, embed: EmbedAll, progress: Progress
) -> dict[str, np.ndarray]:
    """Vectors of all renders, of length 1: [renders, d]. Holds only a few notes at a time."""
    parts: dict[str, list[np.ndarray]] = {}
    rows: list[int] = []
    notes = iter(library)
    while batch := list(islice(notes, BATCH)):
        rows += [row for row, _ in batch]
        clips = np.stack([frontend.clip(note.astype(np.float32) / 32768.0) for _, note in batch])
        for name, vectors in embed(clips).items():
            parts.setdefault(name, []).append(_unit(vectors))
        progress("vectors", len(rows), renders)
    if sorted(rows) != list(range(renders)):
        raise DataError(f"{len(rows)} renders came for a library of {renders}: build the library again")
    order = np.argsort(rows)
    return {name: np.concatenate(vectors)[order] for name, vectors in parts.items()}


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
