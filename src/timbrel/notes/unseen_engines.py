"""Notes of sound engines that nothing is trained on: what a codec makes of them tells what it makes of the world.

    vital       wavetables (``vita``, GPL-3): patches drawn by a seed, because its presets may not be passed on
    amsynth     subtractive (Debian's amsynth, GPL-2+): presets of its own banks
    whysynth    wavetables, FM, PADsynth (Debian's whysynth, GPL-2+): the programs that it brings along

The engines are loaded in the render processes only. An engine that this machine lacks gives no patches.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from timbrel.errors import DataError
from timbrel.notes.dssi import DssiSynth
from timbrel.notes.noteset import HELD_SECONDS, NOTE_SAMPLES, NOTE_SECONDS, SAMPLE_RATE, quantise
from timbrel.notes.render import SILENCE_PEAK, map_jobs, measure_f0
from timbrel.notes.selection import sounding_offset

ENGINES = ("vital", "amsynth", "whysynth")
PLUGINS = {"amsynth": Path("/usr/lib/dssi/amsynth_dssi.so"), "whysynth": Path("/usr/lib/dssi/whysynth.so")}
AMSYNTH_BANKS = Path("/usr/share/amsynth/banks")
VELOCITY = 100
KEYS_PER_PATCH = 4
# As in the notes stage: so many of a patch's notes have to sound a constant number of whole octaves off their keys.
PITCHED_SHARE = 0.6
# whysynth makes PADsynth tables in a thread of its own when a patch is first played.
TABLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch and the MIDI keys to play it at. ``controls``: values by name; or ``program``: (bank, program)."""

    engine: str
    name: str
    keys: tuple[int, ...]
    controls: Mapping[str, float] = field(default_factory=dict)
    modulations: tuple[tuple[str, str, float], ...] = ()
    program: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class UnseenNote:
    """``audio`` int16 [96000] as in a NoteSet: 4 s at 24 kHz, held 3 s, peak at -1 dBFS."""

    engine: str
    patch: str
    key: int
    audio: npt.NDArray[np.int16]
    velocity: int = VELOCITY


def patches(engine: str, count: int, *, seed: int) -> list[Patch]:
    """``count`` patches of ``engine``, drawn by ``seed``; none where the engine is not installed."""
    rng = np.random.default_rng([seed, ENGINES.index(engine)])
    if engine == "vital":
        return [_vital_patch(i, rng) for i in range(count)] if importlib.util.find_spec("vita") else []
    if not PLUGINS[engine].is_file():
        return []
    if engine == "amsynth":
        presets = [preset for path in sorted(AMSYNTH_BANKS.iterdir()) for preset in read_amsynth_bank(path)]
        chosen = np.sort(rng.permutation(len(presets))[:count])
        return [
            Patch(engine=engine, name=presets[at][0], keys=_keys(i), controls=presets[at][1])
            for i, at in enumerate(chosen)
        ]
    found = next(map_jobs([PLUGINS[engine]], _programs, workers=1)).value or []
    # Some programs are headings over the ones that follow.
    programs = [program for program in found if "====" not in program[2]]
    chosen = np.sort(rng.permutation(len(programs))[:count])
    return [
        Patch(engine=engine, name=programs[at][2], keys=_keys(i), program=programs[at][:2])
        for i, at in enumerate(chosen)
    ]


def read_amsynth_bank(path: Path) -> list[tuple[str, dict[str, float]]]:
    """(name, parameters) of every preset of amsynth's text format. Raises DataError for any other file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "amSynth":
        raise DataError(f"{path} is not a bank of amsynth: its first line is not 'amSynth'")
    presets: list[tuple[str, dict[str, float]]] = []
    for line in lines[1:]:
        if line.startswith("<preset> <name> "):
            presets.append((line.removeprefix("<preset> <name> ").strip(), {}))
        elif line.startswith("<parameter> ") and presets:
            _, name, value = line.split()
            presets[-1][1][name] = float(value)
    return presets


def render_unseen(
    wanted: Sequence[Patch], *, velocities: Sequence[int] = (VELOCITY,), workers: int | None = None
) -> list[UnseenNote]:
    """The notes of the ``wanted`` patches that sound and are pitched, in their order; each key at each velocity.

    A patch is left out whole when a note is silent or not finite, or when its F0 is not a constant number of whole
    octaves from its keys: the notes stage's own rule for what counts as an instrument.
    """
    notes = []
    jobs = [(patch, tuple(velocities)) for patch in wanted]
    for patch, result in zip(wanted, map_jobs(jobs, _render, workers=workers), strict=True):
        if not result.value:
            continue
        keys = [key for key, _, _, _ in result.value]
        offset = sounding_offset(keys, [midi for _, _, _, midi in result.value], share=PITCHED_SHARE)
        if offset is None or round(offset) % 12:
            continue
        notes += [
            UnseenNote(patch.engine, patch.name, key, audio, velocity)
            for key, velocity, audio, _ in result.value
        ]
    return notes


def _keys(index: int) -> tuple[int, ...]:
    """Four keys six semitones apart within 48 ... 72, so that the patches together play all of them."""
    return tuple(48 + index % 7 + 6 * step for step in range(KEYS_PER_PATCH))


def _programs(plugin: Path) -> list[tuple[int, int, str]]:
    return DssiSynth(plugin).programs()


def _render(job: tuple[Patch, tuple[int, ...]]) -> list[tuple[int, int, npt.NDArray[np.int16], float]]:
    """(key, velocity, audio, F0 in MIDI) of every note; nothing when one is silent or not finite. In the engine's own
    process.
    """
    patch, velocities = job
    found = []
    for key, velocity in itertools.product(patch.keys, velocities):
        audio, rate = play(patch, key, velocity)
        if not np.isfinite(audio).all() or float(np.abs(audio).max(initial=0.0)) < SILENCE_PEAK:
            return []
        resampled = soxr.resample(audio, rate, SAMPLE_RATE)[:NOTE_SAMPLES]
        pcm = quantise(np.pad(resampled, (0, NOTE_SAMPLES - len(resampled))))
        found.append((key, velocity, pcm, measure_f0(pcm)[0]))
    return found


def play(patch: Patch, key: int, velocity: int = VELOCITY) -> tuple[npt.NDArray[np.float32], int]:
    """One key: float32 [4 s], held for 3 s, and its rate in Hz. For an engine's own process."""
    return (_play_vital if patch.engine == "vital" else _play_dssi)(patch, key, velocity)


def _play_dssi(patch: Patch, key: int, velocity: int) -> tuple[npt.NDArray[np.float32], int]:
    synth = DssiSynth(PLUGINS[patch.engine])
    if patch.controls:
        # Presets of old banks lack newer parameters: those keep the plugin's defaults.
        for name, value in patch.controls.items():
            if name in synth.controls:
                synth.set(name, value)
    else:
        synth.select(*patch.program)
        synth.play(key=key, velocity=VELOCITY, held=0.02, seconds=0.04)
        synth.rest(TABLE_SECONDS)
        synth.close()
        synth = DssiSynth(PLUGINS[patch.engine])
        synth.select(*patch.program)
    audio = synth.play(key=key, velocity=velocity, held=HELD_SECONDS, seconds=NOTE_SECONDS)
    synth.close()
    return audio, synth.sample_rate


def _play_vital(patch: Patch, key: int, velocity: int) -> tuple[npt.NDArray[np.float32], int]:
    synth: Any = importlib.import_module("vita").Synth()
    rate = 44_100
    synth.set_sample_rate(rate)
    for source, destination, _ in patch.modulations:
        synth.connect_modulation(source, destination)
    controls = synth.get_controls()
    for index, (_, _, amount) in enumerate(patch.modulations, start=1):
        controls[f"modulation_{index}_amount"].set(amount)
    for name, value in patch.controls.items():
        controls[name].set(value)
    stereo: npt.NDArray[np.float32] = synth.render(key, velocity / 127.0, HELD_SECONDS, NOTE_SECONDS)
    return stereo.mean(axis=0), rate


def _vital_patch(index: int, rng: np.random.Generator) -> Patch:
    """Settings as a sound designer might leave them: one or two oscillators, warped, filtered, with an envelope.

    Times are the engine's own scale: seconds to the power 1/4.
    """
    controls: dict[str, float] = {}
    modulations: list[tuple[str, str, float]] = []
    second = rng.random() < 0.5
    for osc in ("osc_1", "osc_2") if second else ("osc_1",):
        controls[f"{osc}_on"] = 1.0
        controls[f"{osc}_random_phase"] = 0.0
        controls[f"{osc}_wave_frame"] = rng.uniform(0.0, 256.0)
        if rng.random() < 0.5:  # vocode, formant scale, smear, random amplitudes, low pass, high pass
            controls[f"{osc}_spectral_morph_type"] = float(rng.choice([1, 2, 5, 6, 7, 8]))
            controls[f"{osc}_spectral_morph_amount"] = rng.uniform(0.1, 0.9)
        if rng.random() < 0.5:  # sync, formant, quantise, bend, squeeze, pulse
            controls[f"{osc}_distortion_type"] = float(rng.integers(1, 7))
            controls[f"{osc}_distortion_amount"] = rng.uniform(0.1, 0.9)
        if rng.random() < 0.35:
            controls[f"{osc}_unison_voices"] = float(rng.integers(2, 8))
            controls[f"{osc}_unison_detune"] = rng.uniform(0.5, 4.5)
    if second:
        controls["osc_2_transpose"] = float(rng.choice([-12, 0, 0, 12]))
        controls["osc_2_tune"] = rng.uniform(-0.08, 0.08)
        controls["osc_2_level"] = rng.uniform(0.3, 0.7)
        if rng.random() < 0.25:  # frequency modulation by the second oscillator
            controls["osc_1_distortion_type"] = 7.0
            controls["osc_1_distortion_amount"] = rng.uniform(0.1, 0.6)
    controls["env_1_attack"] = rng.uniform(0.1, 0.8)
    controls["env_1_decay"] = rng.uniform(0.6, 1.4)
    controls["env_1_sustain"] = rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.3, 0.7])
    controls["env_1_release"] = rng.uniform(0.4, 1.0)
    if rng.random() < 0.7:
        controls["filter_1_on"] = 1.0
        controls["filter_1_model"] = float(rng.integers(0, 5))
        controls["filter_1_cutoff"] = rng.uniform(45.0, 110.0)
        controls["filter_1_resonance"] = rng.uniform(0.0, 0.7)
        controls["filter_1_keytrack"] = rng.choice([0.0, 1.0])
        controls["env_2_decay"] = rng.uniform(0.5, 1.3)
        controls["env_2_sustain"] = rng.uniform(0.0, 0.8)
        modulations.append(("env_2", "filter_1_cutoff", rng.uniform(0.0, 0.5)))
    if rng.random() < 0.25:
        controls["lfo_1_frequency"] = rng.uniform(1.5, 2.6)  # octaves: 2.8 ... 6 Hz
        modulations.append(("lfo_1", "osc_1_wave_frame", rng.uniform(0.05, 0.4)))
    for effect, share in (("chorus", 0.25), ("phaser", 0.1), ("reverb", 0.2), ("distortion", 0.15)):
        if rng.random() < share:
            controls[f"{effect}_on"] = 1.0
    return Patch(
        engine="vital",
        name=f"vital {index:03d}",
        keys=_keys(index),
        controls=controls,
        modulations=tuple(modulations),
    )
