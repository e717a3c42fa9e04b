"""Every encoder that can be asked here, each vector by its name: the bundle's, the baselines, and what is at hand.

stage1, stage2                             the bundle's two vectors
search                                     both as the search orders by them (``two_stage.blended``)
mfcc, mel, codec                           baselines
<published encoder>, <…>-style             its embedding, and the style of its blocks where it has any
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from timbrel.codec.runtime import ENCODER, Codec, codec_of
from timbrel.encoders.interface import Embedded, Encoder
from timbrel.encoders.registry import ENCODERS, NETWORKS, Ours, open_encoder
from timbrel.errors import DataError
from timbrel.library.vectors import RunModel, embed_clips
from timbrel.published import CATALOGUE

if TYPE_CHECKING:
    from timbrel.engine.engine import Engine

OURS = "stage2"
BUNDLED = ("stage1", OURS)
SEARCH = "search"
# What reports call an encoder's vectors where that is not its own name, and its name with "-style".
NAMES = {"timbre": BUNDLED, "clap-music": ("clap", "clap-style")}
# Clips [b, 72000] (``frontend.clip``) -> the vectors [b, d] of every encoder, by name; one pass of each network.
EmbedAll = Callable[[np.ndarray], dict[str, np.ndarray]]


def of_engine(engine: Engine, *, bundled: bool = True) -> tuple[EmbedAll, Mapping[str, str]]:
    """As ``every_encoder``, with the models and the codec of an engine."""
    codec = codec_of(engine.models, engine.bundle.manifest.models[ENCODER].inputs)
    return every_encoder(engine.models.run, codec, bundled=bundled)


def every_encoder(
    run: RunModel, codec: Codec | None = None, *, bundled: bool = True
) -> tuple[EmbedAll, Mapping[str, str]]:
    """(all that can be asked, why those cannot whose file could be fetched).

    Without ``bundled`` the bundle's two vectors are left out, without ``codec`` its latents.
    """
    ours = Ours(lambda clips: embed_clips(run, clips), codec.encode_batch if codec else None)
    opened: list[Encoder] = []
    absent: dict[str, str] = {}
    for name in ENCODERS:
        if (name == "timbre" and not bundled) or (name == "codec" and codec is None):
            continue
        try:
            opened.append(open_encoder(name, ours=ours))
        except DataError as error:
            # Of files that cannot be fetched nothing is said. Two encoders may want the same one.
            if NETWORKS[name].weights in CATALOGUE and error.message not in absent.values():
                absent[name] = error.message

    def embed(clips: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for encoder in opened:
            found |= named(encoder.name, encoder.embed(clips))
        return found

    return embed, absent


def named(encoder: str, vectors: Embedded) -> dict[str, np.ndarray]:
    """Vectors by the names that reports give them."""
    plain, style = NAMES.get(encoder, (encoder, f"{encoder}-style"))
    found = {plain: vectors.embedding}
    return found if vectors.style is None else found | {style: vectors.style}


def baselines(names: Iterable[str]) -> list[str]:
    """Of encoders' names, those that stand beside the bundle's own vectors."""
    return [name for name in names if name not in (*BUNDLED, SEARCH)]
