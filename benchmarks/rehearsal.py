"""What a profile's trainings would take on this machine: a few real steps, timed, and multiplied.

    python benchmarks/rehearsal.py params/nsynth.yaml --steps 50 --out rehearsal.json

Map and generator of the profile's sizes take steps on random embeddings, on its device and in its precision, in one
process; then Faiss searches random vectors, on a GPU where it can. Needs no data. The whole is extrapolated: reading
notes, evaluations and the other stages are not in it, nor what several processes would save.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timbrel import distributed
from timbrel.notes.families import FAMILIES
from timbrel.params import Params, load
from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.generator import GeneratorShape
from timbrel.pgesam.generator_training import GeneratorTraining, train_generator
from timbrel.pgesam.vae_training import Encoded, VaeTraining, train_vae
from timbrel.stages.vae import configure
from timbrel.tracking.record import device as device_name


def random_notes(instruments: int) -> tuple[np.ndarray, MapNotes]:
    """Embeddings [notes, 300, 128] of noise, 25 pitches each, all to learn from."""
    instrument = np.repeat(np.arange(instruments), 25)
    rows = np.arange(len(instrument))
    embeddings = np.random.default_rng(0).standard_normal((len(rows), 300, 128), dtype=np.float32)
    return embeddings.astype(np.float16), MapNotes(
        row=rows,
        instrument=instrument,
        family=instrument % len(FAMILIES),
        pitch=np.tile(np.arange(25), instruments),
        velocity=np.full(len(rows), 100),
        split=np.full(len(rows), "train"),
        instruments=tuple(map(str, range(instruments))),
    )


def seconds_per_step(train: Callable[[int], object], steps: int) -> float:
    """What each of ``steps`` adds to a training of one step, which also builds the network and measures it."""

    def taken(count: int) -> float:
        began = time.perf_counter()
        train(count)
        return time.perf_counter() - began

    train(1)  # what is compiled and allocated once
    return max(0.0, taken(steps) - taken(1)) / (steps - 1)


def ignored(step: int, metrics: dict[str, float]) -> None:
    """No report."""


def rehearse(params: Params, steps: int, instruments: int) -> dict[str, Any]:
    embeddings, notes = random_notes(instruments)
    device = distributed.choose(params.hardware.device)
    lower = distributed.lowers_precision(params.hardware.precision, device)
    shape, training, curriculum = configure(params, notes, dimensions=128, spectrum=None)
    common = {name: getattr(training, name) for name in training.__slots__}

    def train_map(count: int) -> object:
        return train_vae(
            embeddings,
            notes,
            shape=shape,
            training=VaeTraining(**common | {"steps": count, "evaluate_every": count}),
            curriculum=curriculum,
            report=ignored,
            device=device,
            bfloat16=lower,
        )

    wanted = params.generator
    points = np.random.default_rng(1).standard_normal((len(notes), 2), dtype=np.float32)
    encoded = Encoded(points, np.full_like(points, 0.1), np.zeros((len(notes), 25), np.float32))
    of_generator = GeneratorShape(
        width=wanted.width, heads=wanted.heads, condition_layers=wanted.condition_layers,
        decoder_layers=wanted.decoder_layers, feedforward=wanted.feedforward, frames=wanted.frames,
        frames_per_token=wanted.frames_per_token, dimensions=128, dropout=wanted.dropout,
    )  # fmt: skip

    def train_player(count: int) -> object:
        training = GeneratorTraining(
            steps=count, batch=wanted.batch, learning_rate=wanted.learning_rate, weight_decay=wanted.weight_decay,
            warmup_steps=1, frame_weight=wanted.frame_weight, condition_noise=wanted.condition_noise,
            input_noise=wanted.input_noise, input_dropout=wanted.input_dropout, evaluate_every=count, seed=1,
        )  # fmt: skip
        return train_generator(
            embeddings, notes, encoded, shape=of_generator, training=training, report=ignored, device=device,
            bfloat16=lower,
        )  # fmt: skip

    vae, generator = (seconds_per_step(train, steps) for train in (train_map, train_player))
    return {
        "extrapolated": True,
        "device": device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "machine": platform.machine(),
        "precision": "bf16" if lower else "float32",
        "steps_timed": steps,
        "vae": {"seconds_per_step": vae, "steps": params.vae.steps, "hours": vae * params.vae.steps / 3600},
        "generator": {
            "seconds_per_step": generator,
            "steps": wanted.steps,
            "hours": generator * wanted.steps / 3600,
        },
        "faiss": search(),
    }


def search(vectors: int = 20_000, dimensions: int = 128, queries: int = 64) -> dict[str, Any]:
    """An exact search with Faiss: milliseconds a query, and what computed it."""
    import faiss

    rng = np.random.default_rng(2)
    stored, asked = (rng.standard_normal((n, dimensions), dtype=np.float32) for n in (vectors, queries))
    index = faiss.IndexFlatIP(dimensions)
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if gpus:
        resources = faiss.StandardGpuResources()
        index = faiss.index_cpu_to_gpu(resources, 0, index)
    index.add(stored)
    index.search(asked, 100)
    began = time.perf_counter()
    index.search(asked, 100)
    taken = 1000 * (time.perf_counter() - began) / queries
    return {"on": "GPU" if gpus else "CPU", "vectors": vectors, "milliseconds_per_query": taken}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("params", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--instruments", type=int, default=110)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    found = rehearse(load(options.params), max(3, options.steps), options.instruments)
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text)
    hours = found["vae"]["hours"] + found["generator"]["hours"]
    print(
        f"map and generator: {hours:.1f} h on this machine, extrapolated from {found['steps_timed']} steps each"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
