"""From audio to the library's coordinates, by whatever runs the models: used alike for renders and for
queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from timbrel.codec import spectrum
from timbrel.errors import BundleError, Unavailable

if TYPE_CHECKING:
    from timbrel.codec.runtime import Codec

# One call of one model: (name, inputs) -> outputs, batch first. ``Models.run`` of the engine is one.
RunModel = Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]

# The map encoder looks at the first two seconds of a note; the last of its frames look 1,024 samples further.
MAP_FRAMES = 150
MAP_SAMPLES = (MAP_FRAMES + 4) * spectrum.HOP
# Notes are stored with this peak (-1 dBFS), and the codec's levels are absolute.
NOTE_PEAK = 10 ** (-1 / 20)


def embed_clips(run: RunModel, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Front-end clips float32 [b, 72000] -> stage-1 [b, d1] and stage-2 [b, d2] vectors, l2-normalised
    float32.
    """
    outputs = run("timbre_encoder", {"audio": np.ascontiguousarray(clips, dtype=np.float32)})
    return finite(outputs["stage1"], "timbre_encoder"), finite(outputs["stage2"], "timbre_encoder")


def map_positions(run: RunModel, codec: Codec, notes: np.ndarray) -> np.ndarray:
    """Notes float32 [b, 2.1 s or more] that start at their onset, peak at -1 dBFS -> places on the map [b, 2]."""
    return positions_of_embeddings(run, codec.encode_batch(notes[:, :MAP_SAMPLES])[:, :MAP_FRAMES])


def positions_of_embeddings(run: RunModel, embedding: np.ndarray) -> np.ndarray:
    """What the codec made of notes, [b, 150, 128] -> places on the map [b, 2]."""
    heard = np.ascontiguousarray(finite(embedding, "codec_encoder"))
    positions = finite(run("map_encoder", {"embedding": heard})["position"], "map_encoder")
    if positions.shape[1] != 2:
        raise BundleError(
            f"the map has {positions.shape[1]} dimensions, a library's has 2: set vae.map_dimensions to 2 and run "
            "`dvc repro`"
        )
    return positions


def finite(output: np.ndarray, model: str) -> np.ndarray:
    """An output, checked: a model server that answers NaN must not become a wrong answer."""
    value = np.asarray(output, dtype=np.float32)
    if not np.isfinite(value).all():
        raise Unavailable(
            f"the model {model} answered with values that are not finite; restart the model server"
        )
    return value
