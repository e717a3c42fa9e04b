"""Every encoder that can be asked here, by name: the bundle's, the baselines, and published ones that are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import soxr

from timbrel.encoders import baselines
from timbrel.encoders.baselines import Encoder
from timbrel.encoders.frontend import SAMPLE_RATE
from timbrel.errors import DataError
from timbrel.library.vectors import RunModel, embed_clips
from timbrel.published import find

OURS = "stage2"
EFFICIENTAT = "efficientat-mn04"


def encoders(run: RunModel) -> tuple[dict[str, Encoder], Mapping[str, str]]:
    """(encoders by name, why others are not among them). ``stage1`` and ``stage2`` are the bundle's two vectors."""
    found: dict[str, Encoder] = {
        "stage1": lambda clips: embed_clips(run, clips)[0],
        "stage2": lambda clips: embed_clips(run, clips)[1],
        **baselines.BASELINES,
    }
    try:
        path = find(EFFICIENTAT)
    except DataError as error:
        return found, {EFFICIENTAT: error.message}
    from timbrel.encoders.efficientat import read_published

    network = read_published(path)
    found[EFFICIENTAT] = partial(_efficientat, network, 0)
    found[f"{EFFICIENTAT}-style"] = partial(_efficientat, network, 1)
    return found, {}


def _efficientat(network: object, which: int, clips: np.ndarray) -> np.ndarray:
    from timbrel.encoders import efficientat, efficientat_mel

    assert isinstance(network, efficientat.EfficientAt)
    resampled = np.stack([soxr.resample(each, SAMPLE_RATE, efficientat_mel.SAMPLE_RATE) for each in clips])
    return efficientat.vectors(network, efficientat_mel.picture(resampled))[which]
