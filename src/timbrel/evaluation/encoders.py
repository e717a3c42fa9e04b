"""Every encoder that can be asked here, by name: the bundle's, the baselines, and published ones that are at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import soxr

from timbrel.encoders.baselines import BASELINES
from timbrel.encoders.frontend import SAMPLE_RATE
from timbrel.errors import DataError
from timbrel.library.vectors import RunModel, embed_clips
from timbrel.published import find

OURS = "stage2"
BUNDLED = ("stage1", OURS)
EFFICIENTAT = "efficientat-mn04"
# Clips [b, 72000] (``frontend.clip``) -> the vectors [b, d] of every encoder, by name; one pass of each network.
EmbedAll = Callable[[np.ndarray], dict[str, np.ndarray]]


def every_encoder(run: RunModel, *, bundled: bool = True) -> tuple[EmbedAll, Mapping[str, str]]:
    """(all that can be asked, why others cannot). ``stage1`` and ``stage2`` are the bundle's two vectors; without
    ``bundled`` they are left out.
    """
    published: list[EmbedAll] = []
    absent: dict[str, str] = {}
    try:
        published.append(_efficientat())
    except DataError as error:
        absent[EFFICIENTAT] = error.message

    def embed(clips: np.ndarray) -> dict[str, np.ndarray]:
        found = dict(zip(BUNDLED, embed_clips(run, clips), strict=True)) if bundled else {}
        found |= {name: encoder(clips) for name, encoder in BASELINES.items()}
        for each in published:
            found |= each(clips)
        return found

    return embed, absent


def baselines(names: Iterable[str]) -> list[str]:
    """Of encoders' names, those that stand beside the bundle's own vectors."""
    return [name for name in names if name not in BUNDLED]


def _efficientat() -> EmbedAll:
    """Its embedding and the style of all its blocks. Raises DataError when its file is not at hand."""
    path = find(EFFICIENTAT)
    # torch, which nothing else here needs
    from timbrel.encoders import efficientat, efficientat_mel

    network = efficientat.read_published(path)

    def embed(clips: np.ndarray) -> dict[str, np.ndarray]:
        resampled = np.stack(
            [soxr.resample(each, SAMPLE_RATE, efficientat_mel.SAMPLE_RATE) for each in clips]
        )
        embedding, style = efficientat.vectors(network, efficientat_mel.picture(resampled))
        return {EFFICIENTAT: embedding, f"{EFFICIENTAT}-style": style}

    return embed
