"""From audio to the library's coordinates, by whatever runs the models: used alike for renders and for
queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from timbrel.codec import spectrum
from timbrel.errors import Unavailable

# One call of one model: (name, inputs) -> outputs, batch first. ``Models.run`` of the engine is one.
RunModel = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]

NOTE_SAMPLES = 96_000
# The map encoder looks at the first two seconds of a note.
MAP_FRAMES = 150
# Notes are stored with this peak (-1 dBFS), and the codec's levels are absolute.
NOTE_PEAK = 10 ** (-1 / 20)


def embed_clips(run: RunModel, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Front-end clips float32 [b, 72000] -> stage-1 [b, d1] and stage-2 [b, d2] vectors, l2-normalised
    float32.
    """
    outputs = run("timbre_encoder", {"audio": np.ascontiguousarray(clips, dtype=np.float32)})
    return _finite(outputs, "timbre_encoder", "stage1"), _finite(outputs, "timbre_encoder", "stage2")


def codec_embedding(run: RunModel, audio: np.ndarray) -> np.ndarray:
    """Audio float32 [b, n] at 24 kHz -> codec embedding float32 [b, n // 320, 128]."""
    log_magnitude = np.ascontiguousarray(spectrum.log_magnitude(audio), dtype=np.float32)
    return _finite(run("codec_encoder", {"log_magnitude": log_magnitude}), "codec_encoder", "embedding")


def map_positions(run: RunModel, embedding: np.ndarray) -> np.ndarray:
    """Codec embedding float32 [b, 150 or more, 128] -> places on the timbre map, float32 [b, 2]."""
    head = np.ascontiguousarray(embedding[:, :MAP_FRAMES], dtype=np.float32)
    return _finite(run("map_encoder", {"embedding": head}), "map_encoder", "position")


def note_from_clip(clip: np.ndarray) -> np.ndarray:
    """A clip that starts at its onset, float32 [n], as a note: 4 s, peak at -1 dBFS. float32 [96000]"""
    note = np.zeros(NOTE_SAMPLES, dtype=np.float32)
    head = clip[:NOTE_SAMPLES]
    note[: len(head)] = head
    peak = float(np.abs(note).max())
    return note * np.float32(NOTE_PEAK / peak) if peak > 0 else note


def _finite(outputs: Mapping[str, np.ndarray], model: str, name: str) -> np.ndarray:
    """An output, checked: a model server that answers NaN must not become a wrong answer."""
    value = np.asarray(outputs[name], dtype=np.float32)
    if not np.isfinite(value).all():
        raise Unavailable(
            f"the model {model} answered with values that are not finite; restart the model server"
        )
    return value
