"""The encoder as one ONNX graph, mel front end included: ``audio`` [b, 72000] to ``stage1`` and ``stage2``."""

from __future__ import annotations

from pathlib import Path

from timbrel.encoders.frontend import CLIP_SAMPLES
from timbrel.encoders.graph import Free, Graph, tones
from timbrel.encoders.published_search import PublishedEncoder
from timbrel.encoders.timbre import TimbreEncoder


def export(encoder: TimbreEncoder | PublishedEncoder, path: Path) -> float:
    """Write ``timbre_encoder.onnx``; returns the largest difference to the encoder itself on test sounds, relative to
    the largest number of each vector.

    Raises DataError when that is more than 1e-4: then the file is not written.
    """
    graph = Graph(
        encoder.eval(),
        inputs={"audio": (Free("b"), CLIP_SAMPLES)},
        outputs=("stage1", "stage2"),
    )
    sounds = tones(6)
    sounds[-1, CLIP_SAMPLES // 6 :] = 0.0  # nothing is heard after half a second
    return graph.write(path, {"audio": sounds})
