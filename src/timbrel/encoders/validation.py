"""How well do notes find their patch? The same question for the network and for its baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from timbrel.encoders.baselines import BASELINES
from timbrel.encoders.batches import prepare
from timbrel.encoders.disturb import add_noise, lead_in
from timbrel.encoders.frontend import clip
from timbrel.encoders.retrieval import recall
from timbrel.encoders.timbre import TimbreNetwork
from timbrel.encoders.training import embed

QUERY_SNR_DB = 30.0
QUERY_LEAD_IN_SECONDS = 0.5
_CHUNK = 64

Note = Callable[[int], np.ndarray]


class Validation:
    """Notes of patches that were never trained on, in light noise and after a silence, look for their patch.

    ``audio(i)`` gives note ``i`` as float ``[samples]`` at 24 kHz, ``labels[i]`` its patch, ``pitches[i]``
    its MIDI key. ``asked`` are the notes that are looked up; the others only make the list longer. A patch is
    found by another of its notes, the nearest in pitch, which has another pitch and velocity: see
    ``retrieval.recall``.
    """

    def __init__(
        self, audio: Note, labels: np.ndarray, pitches: np.ndarray, asked: np.ndarray, seed: int
    ) -> None:
        self._audio, self._labels, self._pitches, self._asked, self._seed = (
            audio,
            labels,
            pitches,
            asked,
            seed,
        )
        self._gallery = prepare(audio, labels, pitches)
        self._queries = prepare(self._recorded, labels[asked], pitches[asked])

    def __call__(self, network: TimbreNetwork) -> dict[str, float]:
        """Recall at 1 and 10 of stage 1, by name: ``stage1.recall1`` and so on."""
        return self._recall("stage1", embed(network, self._queries), embed(network, self._gallery))

    def of(self, embed: Callable[[np.ndarray], Mapping[str, np.ndarray]]) -> dict[str, float]:
        """The same figures of both stages, ``stage1.recall1``, ``stage2.recall1`` and so on; ``embed`` takes clips
        [b, 72000] to vectors [b, d] by name."""
        gallery = _encode(self._audio, len(self._labels), embed)
        queries = _encode(self._recorded, len(self._asked), embed)
        figures: dict[str, float] = {}
        for name in gallery:
            figures |= self._recall(name, queries[name], gallery[name])
        return figures

    def baselines(self) -> dict[str, float]:
        """The same figures, ``baselines.mfcc.recall1`` and so on, of vectors that need no training."""
        gallery = _encode(self._audio, len(self._labels), _baselines)
        queries = _encode(self._recorded, len(self._asked), _baselines)
        figures: dict[str, float] = {}
        for name in BASELINES:
            figures |= self._recall(f"baselines.{name}", queries[name], gallery[name])
        return figures

    def _recorded(self, i: int) -> np.ndarray:
        """Query ``i``: the note after a silence, all of it in noise."""
        rng = np.random.default_rng((self._seed, i))
        return add_noise(lead_in(self._audio(int(self._asked[i])), QUERY_LEAD_IN_SECONDS), QUERY_SNR_DB, rng)

    def _recall(self, name: str, queries: np.ndarray, gallery: np.ndarray) -> dict[str, float]:
        find = partial(recall, labels=self._labels, pitches=self._pitches, asked=self._asked)
        return {f"{name}.recall{k}": value for k, value in find(queries, gallery).items()}


def _baselines(clips: np.ndarray) -> dict[str, np.ndarray]:
    return {name: encode(clips) for name, encode in BASELINES.items()}


def _encode(
    audio: Note, count: int, embed: Callable[[np.ndarray], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """All vectors of notes ``0 .. count - 1``; their clips are made once, some at a time."""
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, count, _CHUNK):
        clips = np.stack([clip(audio(i)) for i in range(start, min(start + _CHUNK, count))])
        for name, vectors in embed(clips).items():
            parts.setdefault(name, []).append(vectors)
    return {name: np.concatenate(vectors) for name, vectors in parts.items()}
