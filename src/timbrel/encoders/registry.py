"""Every encoder by name. What needs torch, or weights that others published, is imported and read when it is opened.

    timbre              ours: the two vectors of a bundle's timbre encoder                     bundle
    codec               the latents of a bundle's codec: mean and deviation over time          bundle
    mfcc, mel           averages that need no training                                         -
    efficientat-mn04 …  EfficientAT of each published width, all its blocks' style             published file
    clap-music, -630k   LAION's CLAP, audio tower, its early blocks' style                     published file
    openl3-512, -6144   OpenL3, music, mean over windows, all its blocks' style                published file

A published network may also be asked where it is served: exported by `timbrel encoders export`, run by onnxruntime or
Triton, without torch and without its file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from timbrel.encoders import clap_input, openl3_mel
from timbrel.encoders.baselines import BASELINES
from timbrel.encoders.interface import Embedded, Encoder, Hearing, RunModel, Style
from timbrel.errors import ConfigurationError, DataError, NotFound
from timbrel.published import CATALOGUE, cache_folder, find

if TYPE_CHECKING:
    from timbrel.encoders.graph import Graph

# A model server takes up to 16 (model_repository/published_encoder).
BATCH = 16
# Notes are brought to this peak (-1 dBFS) before the codec, whose levels are absolute.
CODEC_PEAK = 10 ** (-1 / 20)


@dataclass(frozen=True, slots=True)
class Ours:
    """What a bundle brings: ``timbre``, clips [b, 72000] -> both vectors; ``latents``, -> [b, frames, 128]."""

    timbre: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    latents: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class Direct:
    """An encoder that is a function of clips."""

    name: str
    function: Callable[[np.ndarray], Embedded]
    hears: Hearing = field(default_factory=Hearing)

    def embed(self, clips: np.ndarray) -> Embedded:
        return self.function(clips)


@dataclass(frozen=True, slots=True)
class Asked:
    """An encoder behind a model of its name, whatever runs it."""

    name: str
    hears: Hearing
    front: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    run: RunModel
    batch: int = BATCH

    def embed(self, clips: np.ndarray) -> Embedded:
        parts = [
            self.run(self.name, self.front(self.hears.of(clips[start : start + self.batch])))
            for start in range(0, len(clips), self.batch)
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Embedded(found["embedding"], found.get("style"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How to open a published network.

    ``front``: audio float32 [b, samples] at its own rate to what its model takes; numpy. ``build``: its file and the
    style that is wanted to the model itself; imports torch. ``weights``: its file's name in the catalogue, else, with
    a star, what the file is called. ``about`` and ``licence`` are those of the weights. ``batch``: clips at a time.
    """

    name: str
    hears: Hearing
    front: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    build: Callable[[Path, Style], Graph]
    weights: str
    about: str
    licence: str
    style: Style = field(default_factory=Style)
    batch: int = BATCH

    def file(self) -> Path:
        """Its file where published weights lie. Raises DataError when it is not there.

        Files that the catalogue does not know have no hash to be held to; reading them is strict all the same.
        """
        if self.weights in CATALOGUE:
            return find(self.weights)
        found = sorted(cache_folder().glob(self.weights))
        if not found:
            raise DataError(
                f"no {self.weights} in {cache_folder()}: lay the published file there, or name its folder in "
                "TIMBREL_WEIGHTS"
            )
        return found[0]


def _audio(audio: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"audio": audio}


def _efficientat(width: str, path: Path, style: Style) -> Graph:
    from timbrel.encoders.efficientat import WIDTHS, read_published
    from timbrel.encoders.efficientat_audio import graph

    network = read_published(path)
    if network.width != WIDTHS[width]:
        raise DataError(f"{path} holds an EfficientAT of another width than {width}")
    return graph(network, style)


def _clap(path: Path, style: Style) -> Graph:
    from timbrel.encoders.clap import graph, read_published

    return graph(read_published(path), style)


def _openl3(size: int, path: Path, style: Style) -> Graph:
    from timbrel.encoders.openl3 import graph, read_published

    return graph(read_published(path, size), style)


NETWORKS: Mapping[str, Network] = {
    each.name: each
    for each in (
        *(
            Network(
                name=f"efficientat-{width}",
                hears=Hearing(32_000),
                front=_audio,
                build=partial(_efficientat, width),
                weights="efficientat-mn04" if width == "mn04" else f"{width}_as_mAP_*.pt",
                about=f"EfficientAT {width}, AudioSet (Schmid, Koutini and Widmer 2023)",
                licence="MIT",
            )
            for width in ("mn04", "mn05", "mn10", "mn20", "mn30", "mn40")
        ),
        *(
            Network(
                name=name,
                hears=Hearing(clap_input.SAMPLE_RATE),
                front=clap_input.samples,
                build=_clap,
                weights=name,
                about=CATALOGUE[name].about,
                licence=CATALOGUE[name].licence,
                # Where its timbre is (Tian, Lattner and Saitis, ISMIR 2025).
                style=Style(blocks=("patches", "stage1", "stage2")),
            )
            for name in ("clap-music", "clap-630k")
        ),
        *(
            Network(
                name=f"openl3-{size}",
                hears=Hearing(openl3_mel.SAMPLE_RATE),
                front=openl3_mel.pictures,
                build=partial(_openl3, size),
                weights="openl3-music",
                about=CATALOGUE["openl3-music"].about,
                licence=CATALOGUE["openl3-music"].licence,
                batch=1,  # the maps of a clip are half a gigabyte
            )
            for size in (512, 6_144)
        ),
    )
}
ENCODERS = ("timbre", "codec", *BASELINES, *NETWORKS)


def open_encoder(
    name: str,
    *,
    ours: Ours | None = None,
    run: RunModel | None = None,
    weights: Path | None = None,
    style: Style | None = None,
) -> Encoder:
    """The encoder of that name.

    ``ours``: the bundle, for ``timbre`` and ``codec``. ``run``: what runs the exported model of a published network;
    without it torch does, from ``weights`` (default: where published weights lie) and with ``style`` (default: the
    network's own choice).

    Raises:
        NotFound: no encoder has that name.
        DataError: its weights are not there, or are of another network.
        ConfigurationError: there is no bundle, or no such block.
    """
    if name in BASELINES:
        function = BASELINES[name]
        return Direct(name, lambda clips: Embedded(function(clips)))
    if name in NETWORKS:
        network = NETWORKS[name]
        if run is None:
            run = network.build(weights or network.file(), style or network.style).run
        return Asked(name, network.hears, network.front, run, network.batch)
    if name not in ENCODERS:
        raise NotFound(f"no encoder is called {name!r}: there are {', '.join(ENCODERS)}")
    if ours is not None and name == "timbre":
        timbre = ours.timbre
        return Direct(name, lambda clips: Embedded(*timbre(clips)))
    if ours is not None and ours.latents is not None:
        return Direct(name, partial(_codec, ours.latents))
    raise ConfigurationError(f"{name} is a bundle's encoder: open it with a bundle")


def published_network(name: str) -> Network:
    """How to open a published network. Raises NotFound, which names those that there are."""
    try:
        return NETWORKS[name]
    except KeyError:
        raise NotFound(f"no published encoder is called {name!r}: there are {', '.join(NETWORKS)}") from None


def _codec(latents: Callable[[np.ndarray], np.ndarray], clips: np.ndarray) -> Embedded:
    """Mean and population standard deviation over time of each of the codec's numbers: [b, 72000] -> [b, 256]."""
    peak = np.abs(clips).max(axis=1, keepdims=True)
    frames = latents((clips * (CODEC_PEAK / np.maximum(peak, 1e-9))).astype(np.float32))
    return Embedded(np.concatenate([frames.mean(axis=1), frames.std(axis=1)], axis=1).astype(np.float32))
