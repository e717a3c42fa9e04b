"""Ask an engine a question of each kind: what cannot answer them is not served."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from timbrel.audio import SAMPLE_RATE, Audio
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, TimbrelError
from timbrel.library.bundle import Bundle

_SECONDS = 0.5
_MIDDLE_C = 60.0
# MIDI pitches at which every estimator hears a sine as a note.
_LOWEST, _HIGHEST = 36.0, 84.0


def try_out_bundle(folder: Path) -> Bundle:
    """Open the bundle in ``folder`` by its hashes, load its models and ask them; returns it, closed.

    Raises BundleError, whatever is wrong.
    """
    bundle = Bundle.open(folder)
    try:
        engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    except TimbrelError:
        bundle.close()
        raise
    try:
        try_out(engine)
    except BundleError:
        raise
    except TimbrelError as error:
        raise BundleError(f"the bundle in {folder} does not answer: {error.message}") from error
    finally:
        engine.close()
    return bundle


def try_out(engine: Engine) -> None:
    """A search, a place and a note. Raises BundleError if an answer is none, and what the engine raises."""
    pitches = [each.f0_midi for each in engine.bundle.renders if _LOWEST <= each.f0_midi <= _HIGHEST]
    tone = _tone(min(pitches, key=lambda pitch: abs(pitch - _MIDDLE_C), default=_MIDDLE_C))
    found = engine.search(tone, k=1)
    place = engine.locate(tone)
    note = engine.synthesize(x=0.0, y=0.0, pitch=engine.bundle.manifest.map.pitch_low, seconds=_SECONDS)
    # A library without a note near that pitch has nothing to find.
    if (pitches and not found.hits) or not all(math.isfinite(hit.distance) for hit in found.hits):
        raise BundleError("a search finds nothing in the bundle: build it again")
    if not (math.isfinite(place.x) and math.isfinite(place.y)):
        raise BundleError("the bundle's map has no place for a tone: build it again")
    if not np.isfinite(note.samples).all() or not note.samples.any():
        raise BundleError("a note of the bundle does not sound: build it again")


def _tone(midi: float) -> Audio:
    """A second of a sine."""
    frequency = 440 * 2 ** ((midi - 69) / 12)
    time = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    return Audio((0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32), SAMPLE_RATE)
