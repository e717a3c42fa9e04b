"""Whether a profile can be built here: what it needs, told whole before anything runs.

Times are an estimate from one measured run, the default profile's on two CPU cores (README: how long each stage took),
in proportion to notes, steps and renders. They say nothing about a GPU, nor about networks of another size: those are
measured by ``benchmarks/rehearsal.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timbrel.downloads import gigabytes
from timbrel.errors import ConfigurationError
from timbrel.notes.families import FAMILIES
from timbrel.notes.nsynth import PARTS
from timbrel.params import Params
from timbrel.published import CATALOGUE, cache_folder

# Four seconds of 16-bit audio at 24 kHz, and 300 frames of 128 half floats.
_NOTE_BYTES = 192_000 + 76_800
_RENDER_BYTES = 192_000
# DVC keeps a copy of every output in its cache; temporary folders and models take some more.
_COPIES = 2
_MODELS_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Amount:
    """How much a profile asks of the stages, at the most: what sources hold may be less."""

    notes: int
    renders: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage took in the measured run: seconds, for so many ``units`` of work. ``alike``: whether a profile asks
    for the same kind of work as that one did.
    """

    seconds: float
    measured: float
    units: Callable[[Params, Amount], float]
    alike: Callable[[Params], bool] = lambda params: True

    def estimate(self, params: Params, amount: Amount) -> float | None:
        """Seconds; None where nothing of the kind was measured."""
        if not self.alike(params):
            return None
        return self.seconds * self.units(params, amount) / self.measured


def _same_codec(params: Params) -> bool:
    return params.codec.kind == "magnitude"


def _same_map(params: Params) -> bool:
    return params.vae.hidden == (512, 512, 512, 256) and params.vae.decoded_notes == 48


def _same_generator(params: Params) -> bool:
    wanted = params.generator
    return (wanted.width, wanted.decoder_layers, wanted.feedforward, wanted.batch) == (192, 4, 704, 32)


def _same_encoder(params: Params) -> bool:
    return params.encoder.stage1 == "timbre" and params.encoder.weights is not None


# Of the default profile's 18,104 notes and 4,991 library renders on two CPU cores.
COSTS = {
    "notes": Cost(118.8, 18_104, lambda params, amount: amount.notes),
    "patches": Cost(52.2, 8_240, lambda params, amount: amount.renders),
    "codec": Cost(
        22.8,
        1.0,
        lambda params, amount: 1.0,
        lambda params: _same_codec(params) and bool(params.codec.weights),
    ),
    "embeddings": Cost(865.0, 18_104, lambda params, amount: amount.notes, _same_codec),
    "encoder": Cost(27.5, 1.0, lambda params, amount: 1.0, _same_encoder),
    "vae": Cost(161.2, 2_000, lambda params, amount: params.vae.steps, _same_map),
    "generator": Cost(332.1, 2_000, lambda params, amount: params.generator.steps, _same_generator),
    "pgesam": Cost(
        283.3, 1.0, lambda params, amount: 1.0, lambda params: _same_codec(params) and _same_generator(params)
    ),
    "export": Cost(22.5, 1.0, lambda params, amount: 1.0),
    "library": Cost(46.5, 8_240, lambda params, amount: amount.renders, _same_encoder),
    "index": Cost(1.9, 8_240, lambda params, amount: amount.renders),
    "bundle": Cost(1.5, 8_240, lambda params, amount: amount.renders),
    "evaluate": Cost(
        49.6,
        1.0,
        lambda params, amount: 1.0,
        lambda params: _same_encoder(params) and _same_generator(params),
    ),
}


def amount_of(params: Params) -> Amount:
    """Notes and renders that the profile asks for, at the most."""
    notes, patches = params.notes, params.patches
    pitches = notes.pitch_high - notes.pitch_low + 1 + notes.velocity_notes
    if notes.nsynth is not None:
        # Both sides are capped by family; the held-out one is shared between two splits.
        instruments = (
            1_006
            if notes.instruments_per_family is None
            else 3 * len(FAMILIES) * notes.instruments_per_family
        )
    else:
        instruments = notes.max_presets * max(len(notes.soundfonts), 1) + notes.fm_instruments
    renders = (
        patches.library_voices * len(patches.library_pitches)
        + patches.training_voices * patches.training_renders
    )
    return Amount(notes=min(instruments, 1_006 if notes.nsynth else instruments) * pitches, renders=renders)


def bytes_needed(params: Params) -> int:
    """Room for data/ and DVC's cache, about."""
    amount = amount_of(params)
    return _COPIES * (amount.notes * _NOTE_BYTES + amount.renders * _RENDER_BYTES) + _MODELS_BYTES


def missing_weights(params: Params, root: Path) -> list[str]:
    """What the profile names and is not here, a line each that says how to get it.

    Hashes are checked when the files are read.
    """
    problems = []
    if params.codec.kind == "encodec":
        from timbrel.codec.encodec_weights import find_weights
        from timbrel.errors import DataError

        try:
            path = root / find_weights(params.codec.weights or "", cache_folder())
            if not path.exists():
                problems.append(f"codec.weights: {path} is missing: `timbrel weights fetch encodec-24khz`")
        except DataError:
            problems.append(
                "codec.kind: EnCodec's weights are missing: `timbrel weights fetch encodec-24khz`"
            )
    elif params.codec.weights and not (root / params.codec.weights).is_dir():
        problems.append(f"codec.weights: there is no folder {params.codec.weights}")
    for name in dict.fromkeys((params.encoder.stage1, params.encoder.stage2)):
        if name != "timbre" and (problem := _missing_network(name)):
            problems.append(f"encoder: {problem}")
    if (
        params.encoder.stage1 == "timbre"
        and params.encoder.weights
        and not (root / params.encoder.weights).is_dir()
    ):
        problems.append(f"encoder.weights: there is no folder {params.encoder.weights}")
    return problems


def _missing_network(name: str) -> str | None:
    from timbrel.encoders.registry import NETWORKS

    weights = NETWORKS[name].weights
    if weights not in CATALOGUE:
        there = any(cache_folder().glob(weights))
        return None if there else f"{name} needs {weights} in {cache_folder()}: lay the published file there"
    entry = CATALOGUE[weights]
    names = [entry.file, *(entry.unpacked or ())[:1]]
    there = any((cache_folder() / each).is_file() for each in names)
    return None if there else f"{name} is missing: `timbrel weights fetch {weights}` ({entry.licence})"


def missing_data(params: Params, root: Path) -> list[str]:
    """What the profile is to be built from and is not here."""
    problems = []
    if params.notes.nsynth is not None:
        folder = root / params.notes.nsynth
        absent = [part for part in PARTS if not (folder / f"nsynth-{part}" / "examples.json").is_file()]
        if absent:
            problems.append(
                f"notes.nsynth: {params.notes.nsynth} lacks {', '.join(f'nsynth-{part}' for part in absent)}: "
                f"`timbrel data fetch nsynth --folder {params.notes.nsynth}`, or unpack them there"
            )
    return problems


def missing_room(params: Params, root: Path) -> list[str]:
    """Whether the disk is too full."""
    needed, free = bytes_needed(params), shutil.disk_usage(root).free
    return (
        [f"disk: about {gigabytes(needed)} are needed, {gigabytes(free)} are free"] if free < needed else []
    )


def require_weights(params: Params, root: Path) -> None:
    """Raises ConfigurationError, which names the command for each, when published weights are missing."""
    if problems := missing_weights(params, root):
        raise ConfigurationError(told(problems))


def told(problems: list[str]) -> str:
    """Problems as ``params.load`` tells its own."""
    return "\n".join(
        (f"{len(problems)} problem(s), nothing was run", *(f"  {problem}" for problem in problems))
    )
