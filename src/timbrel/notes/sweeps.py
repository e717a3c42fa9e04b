"""Parameter sweeps: one control of a synthesiser moved in 20 steps, everything else left alone.

A folder of them, one file each, named by what was asked for (engine, attribute, settings of every step):

    <folder>/<digest>.npz    audio int16 [20, 96000], 24 kHz, peak at -1 dBFS; log-spectral distances; what went wrong

Presets are taken in an order drawn by the seed. Of each attribute so many are kept as are asked for; one is left out
for what its audio says, before any encoder has heard it (``fault``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from timbrel.errors import DataError
from timbrel.files import atomic_write
from timbrel.notes.noteset import NOTE_SAMPLES, SAMPLE_RATE, quantise
from timbrel.notes.render import SILENCE_PEAK, map_jobs
from timbrel.notes.sweep_attributes import ATTRIBUTES, Attribute, Setting
from timbrel.notes.unseen_engines import AMSYNTH_BANKS, PLUGINS, Patch, patches, play, read_amsynth_bank

KEY = 60
# Least ``spectral_distance`` of neighbours, and of both ends. The scale: most of a picture is floor, alike in both.
STEP_DB = 0.05
WAY_DB = 1.0
# So many presets are tried for each that is wanted.
TRIES = 6
# A sweep takes some seconds; which ones are kept must not depend on what else the machine is doing.
TIMEOUT_SECONDS = 3600.0
NOTHING = np.zeros((0, 0), dtype=np.int16)
_FRAME, _HOP, _FLOOR_DB = 2048, 1200, -60.0
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """``steps``: the patch at each value of the attribute's control, in that order."""

    engine: str
    attribute: str
    steps: tuple[Patch, ...]

    @property
    def digest(self) -> str:
        """Names the plan's file."""
        content = json.dumps([asdict(self), KEY], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """``audio`` int16 [20, 96000]: 4 s at 24 kHz, C4 held for 3 s, each sound's peak at -1 dBFS."""

    engine: str
    attribute: str
    preset: str
    audio: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class _Rendered:
    audio: npt.NDArray[np.int16]
    fault: str
    steps_db: tuple[float, ...] = ()
    way_db: float = 0.0


def plans(engine: str, attribute: Attribute, *, count: int, seed: int) -> list[SweepPlan]:
    """``count`` presets of ``engine`` made ready for ``attribute``, drawn by ``seed``; none without the engine."""
    number = ATTRIBUTES[engine].index(attribute)
    rng = np.random.default_rng([seed, list(ATTRIBUTES).index(engine), number])
    return [_plan(attribute, preset, rng) for preset in _presets(engine, count, rng)]


def fault(steps_db: Sequence[float], way_db: float) -> str:
    """Why a sweep cannot ask anything of an encoder, by the distances of neighbours and of both ends; or empty.

    stands_still: two neighbours are closer than STEP_DB: the parameter does nothing there, or is at its end.
    hardly_moves: the last sound is closer to the first than WAY_DB.
    """
    if min(steps_db) < STEP_DB:
        return "stands_still"
    return "hardly_moves" if way_db < WAY_DB else ""


def log_spectrum(sound: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """[frames, bins] of ``sound`` [samples] in dB: the loudest bin is at 0, and what is below -60 stands there."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), _FRAME)[::_HOP]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(_FRAME), axis=1)))
    decibels: npt.NDArray[np.float64] = 10.0 * np.log10(np.maximum(power / max(power.max(), 1e-9), 1e-12))
    return np.maximum(decibels, _FLOOR_DB)


def spectral_distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Of two ``log_spectrum``: the root of their mean square difference, in dB."""
    return float(np.sqrt(np.mean(np.square(one - other))))


def render_sweeps(
    folder: Path,
    *,
    presets: int,
    seed: int,
    engines: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> list[Path]:
    """The files of ``presets`` sweeps of every attribute of ``engines`` (all); what ``folder`` has is kept."""
    wanted = [(engine, attribute) for engine in engines or ATTRIBUTES for attribute in ATTRIBUTES[engine]]
    waiting = [plans(engine, attribute, count=TRIES * presets, seed=seed) for engine, attribute in wanted]
    kept: list[list[Path]] = [[] for _ in wanted]
    while True:
        # All attributes in one go: a render process takes seconds to start.
        asked = []
        for found, plan_list in zip(kept, waiting, strict=True):
            lacking = presets - len(found)
            asked.append([plan_list.pop(0) for _ in range(min(lacking, len(plan_list)))])
        if not any(asked):
            return [path for found in kept for path in found]
        _play([plan for some in asked for plan in some], folder, workers, progress)
        for found, some in zip(kept, asked, strict=True):
            found += [path for plan in some if not left_out(path := folder / f"{plan.digest}.npz")]


def _play(some: Sequence[SweepPlan], folder: Path, workers: int | None, progress: Progress) -> None:
    """Render those of which ``folder`` has no file."""
    missing = [plan for plan in some if not (folder / f"{plan.digest}.npz").is_file()]
    for done, (plan, result) in enumerate(
        zip(missing, map_jobs(missing, _render, workers=workers, timeout=TIMEOUT_SECONDS), strict=True),
        start=1,
    ):
        rendered = result.value or _Rendered(NOTHING, result.fault)
        with atomic_write(folder / f"{plan.digest}.npz") as handle:
            np.savez(
                handle, audio=rendered.audio, fault=rendered.fault, engine=plan.engine, attribute=plan.attribute,
                preset=plan.steps[0].name, steps_db=rendered.steps_db, way_db=rendered.way_db,
            )  # fmt: skip
        progress("sweeps", done, len(missing))


def left_out(path: Path) -> str:
    """Why a sweep's file has no part in a measurement; empty when it has.

    silent, not_repeatable, crashed, timed_out, failed: of the engine. stands_still, hardly_moves: see ``fault``.
    """
    with np.load(path) as content:
        return str(content["fault"]) or fault(content["steps_db"].tolist(), float(content["way_db"]))


def load(path: Path) -> Sweep:
    """One sweep's file. Raises DataError when it is none."""
    try:
        with np.load(path) as content:
            return Sweep(
                engine=str(content["engine"]),
                attribute=str(content["attribute"]),
                preset=str(content["preset"]),
                audio=content["audio"],
            )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is not a rendered sweep: delete it, and it is played again ({error})"
        ) from error


def _render(plan: SweepPlan) -> _Rendered:
    """In an engine's own process."""
    # What sounds different each time (noise, an LFO that runs on) is found out before the rest is played.
    last, again = (play(plan.steps[-1], KEY)[0] for _ in range(2))
    if not np.array_equal(last, again):
        return _Rendered(NOTHING, "not_repeatable")
    sounds = []
    for patch in plan.steps:
        audio, rate = play(patch, KEY)
        if not np.isfinite(audio).all() or float(np.abs(audio).max(initial=0.0)) < SILENCE_PEAK:
            return _Rendered(NOTHING, "silent")
        resampled = soxr.resample(audio, rate, SAMPLE_RATE)[:NOTE_SAMPLES]
        sounds.append(quantise(np.pad(resampled, (0, NOTE_SAMPLES - len(resampled)))))
    spectra = [log_spectrum(sound) for sound in sounds]
    steps_db = [spectral_distance(one, other) for one, other in pairwise(spectra)]
    way_db = spectral_distance(spectra[0], spectra[-1])
    return _Rendered(np.stack(sounds), "", tuple(steps_db), way_db)


def _presets(engine: str, count: int, rng: np.random.Generator) -> list[Patch]:
    if engine == "vital":
        return patches("vital", count, seed=int(rng.integers(1 << 31)))
    if not PLUGINS[engine].is_file():
        return []
    known = [preset for path in sorted(AMSYNTH_BANKS.iterdir()) for preset in read_amsynth_bank(path)]
    return [
        Patch(engine=engine, name=known[at][0], keys=(KEY,), controls=known[at][1])
        for at in islice(rng.permutation(len(known)), count)
    ]


def _plan(attribute: Attribute, preset: Patch, rng: np.random.Generator) -> SweepPlan:
    controls = dict(preset.controls)
    for name, setting in attribute.ready.items():
        controls[name] = _drawn(setting, rng)
    own = {(source, destination) for source, destination, _ in attribute.modulations}
    modulations = [each for each in preset.modulations if each[:2] not in own]
    moving = attribute.control
    for source, destination, amount in attribute.modulations:
        if amount is None:
            moving = f"modulation_{len(modulations) + 1}_amount"
        modulations.append((source, destination, 0.0 if amount is None else float(rng.uniform(*amount))))
    ready = replace(preset, keys=(KEY,), modulations=tuple(modulations))
    return SweepPlan(
        engine=preset.engine,
        attribute=attribute.name,
        steps=tuple(replace(ready, controls=controls | {moving: value}) for value in attribute.values),
    )


def _drawn(setting: Setting, rng: np.random.Generator) -> float:
    if isinstance(setting, tuple):
        return float(rng.uniform(*setting))
    return float(rng.choice(setting)) if isinstance(setting, list) else setting
