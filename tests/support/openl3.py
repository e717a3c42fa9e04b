"""Randomly initialised OpenL3 weights in the layout of the published file, and what the original computes from them.

`openl3` needs TensorFlow, which is too large to install for one test: tests/golden/openl3.npz holds what it computed.
With openl3 0.4.2, kapre 0.3.6 and tensorflow 2.15 installed, ``python tests/support/openl3.py`` writes that file again.
The weights and the sound are no part of it: they come from a seed.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "openl3.npz"
SAMPLE_RATE = 48_000
CHANNELS = (1, 64, 64, 128, 128, 256, 256, 512, 512)
# Name of a layer, names of its weights.
Layout = list[tuple[str, list[str]]]


def sound() -> np.ndarray:
    """0.68 s: a decaying tone over noise, after silence; float32 [32640]. Three windows, the last one not filled."""
    rng = np.random.default_rng(1)
    time = np.arange(round(0.68 * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = np.arange(1, 30)[:, None]
    tone = (np.sin(2 * np.pi * 196.0 * harmonics * time) / harmonics).sum(axis=0) * np.exp(-4.0 * time)
    made = 0.3 * tone + 0.003 * rng.standard_normal(len(time))
    made[: SAMPLE_RATE // 10] = 0.0
    return made.astype(np.float32)


def weights() -> list[list[np.ndarray]]:
    """Of each layer that has any: a normalisation's four or a convolution's two; activations stay near 1."""
    rng = np.random.default_rng(0)
    made: list[list[np.ndarray]] = []
    for number, (before, after) in enumerate(pairwise(CHANNELS)):
        mean = 0.1 * rng.standard_normal(before)
        variance = rng.uniform(0.5, 1.5, before)
        if number == 0:
            mean, variance = mean - 50.0, variance * 300.0  # of decibels
        made.append([rng.uniform(0.8, 1.2, before), 0.1 * rng.standard_normal(before), mean, variance])
        kernel = rng.standard_normal((3, 3, before, after)) * np.sqrt(2.0 / (9 * before))
        made.append([kernel, 0.1 * rng.standard_normal(after)])
    return [[each.astype(np.float32) for each in layer] for layer in made]


def write_published(path: Path, *, older: bool = False) -> Path:
    """``weights`` as Keras keeps them (``layout`` of the golden file); ``older``: with the front end's, too."""
    layout: Layout = json.loads(str(np.load(GOLDEN)["layout"]))
    return _write(path, layout, older)


def _write(path: Path, layout: Layout, older: bool = False) -> Path:
    unpacked = path.with_suffix("") if path.suffix == ".gz" else path
    made = iter(weights())
    with h5py.File(unpacked, "w") as file:
        file.attrs["layer_names"] = [layer for layer, _ in layout]
        file.attrs["backend"] = "tensorflow"
        for layer, names in layout:
            group = file.create_group(layer)
            values = next(made) if names else []
            if older and layer == "melspectrogram":
                names, values = ["melspectrogram/Variable:0"], [np.zeros((1_025, 256), np.float32)]
            group.attrs["weight_names"] = names
            for name, value in zip(names, values, strict=True):
                group[name] = value
    if unpacked != path:
        path.write_bytes(gzip.compress(unpacked.read_bytes(), compresslevel=1))
        unpacked.unlink()
    return path


def _make() -> dict[str, Any]:
    """What openl3 itself computes. It must load the file that is written here."""
    from openl3 import get_audio_embedding
    from openl3.models import AUDIO_MODELS, load_audio_embedding_model_from_path

    made: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        own, path = Path(folder, "own.h5"), Path(folder, "openl3_audio_mel256_music.h5")
        AUDIO_MODELS["mel256"]().save_weights(own)
        with h5py.File(own) as file:
            layout = [
                (str(n), [str(w) for w in file[n].attrs["weight_names"]]) for n in file.attrs["layer_names"]
            ]
        made["layout"] = json.dumps(layout)
        _write(path, layout)
        for bands in (128, 256):
            for size in (512, 6_144):
                model = load_audio_embedding_model_from_path(str(path), f"mel{bands}", size)
                found, _ = get_audio_embedding(sound(), SAMPLE_RATE, model=model, hop_size=0.1, verbose=False)
                # Of the long ones, the middle window.
                made[f"mel{bands}_{size}"] = found if size == 512 else found[1]
            picture = next(layer for layer in model.layers if layer.name.startswith("melspectrogram"))
            padded = np.pad(sound(), (SAMPLE_RATE // 2, SAMPLE_RATE))
            middle = padded[SAMPLE_RATE // 10 :][None, None, :SAMPLE_RATE]
            made[f"mel{bands}"] = picture(middle).numpy()[0, :, :, 0]
    return made


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **_make())
