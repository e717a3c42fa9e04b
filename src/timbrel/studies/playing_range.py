"""Study ``range``: held-out instruments rendered anew far outside what the map learned from, pitch by pitch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from timbrel.errors import DataError
from timbrel.notes.render import RenderedNote, RenderJob, render_all
from timbrel.pgesam.dataset import LOWEST_PITCH, PITCHES, MapNotes
from timbrel.studies.listening import Heard, Listener, note_f0
from timbrel.studies.maps import HELD_OUT
from timbrel.studies.plots import curves
from timbrel.studies.table import Figures, Row, Study

Pair = tuple[int, int]  # MIDI pitch, velocity
PROBES = (48, 54, 60, 66, 72)
COLUMNS = {
    "instruments": "instruments",
    "displacement": "displacement",
    "own_nearest": "own instrument nearest",
    "pitch_accuracy": "pitch accuracy",
    "codec_lsd_db": "codec LSD, dB",
    "codec_f0_kept": "codec keeps F0",
    "voiced": "voiced",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Pitches at one velocity, velocities at a few pitches."""

    pitches: Sequence[int] = tuple(range(24, 109, 6))
    velocities: Sequence[int] = (25, 50, 75, 100, 115, 127)
    velocity: int = 100
    at_pitches: Sequence[int] = (48, 60, 72)

    def pairs(self) -> tuple[Pair, ...]:
        wanted = [(pitch, self.velocity) for pitch in self.pitches]
        wanted += [(pitch, velocity) for velocity in self.velocities for pitch in self.at_pitches]
        return tuple(dict.fromkeys(wanted))


def sounding_shift(probes: Sequence[RenderedNote]) -> int:
    """Semitones from key to what sounds, rounded: an organ stop drawn an octave down has -12. 0 when none is voiced."""
    found = [note.f0_midi - note.pitch for note in probes if math.isfinite(note.f0_midi)]
    return round(float(np.median(found))) if found else 0


def render_sweep(
    jobs: Mapping[str, RenderJob], sweep: Sweep, *, workers: int | None = None
) -> dict[str, dict[Pair, RenderedNote]]:
    """Every job's notes by (sounding pitch, velocity). A note that is silent or whose key does not exist is left out.

    As in the notes stage, an instrument that sounds off its key is rendered at a moved key.
    """
    probes = tuple((pitch, sweep.velocity) for pitch in PROBES)
    shifts = {
        outcome.job.key: sounding_shift(outcome.notes)
        for outcome in render_all([replace(job, notes=probes) for job in jobs.values()], workers=workers)
    }
    wanted, asked = sweep.pairs(), []
    for name, job in jobs.items():
        keys = tuple((pitch - shifts[name], velocity) for pitch, velocity in wanted)
        asked.append(replace(job, notes=tuple(pair for pair in keys if 0 <= pair[0] <= 127)))
    return {
        outcome.job.key: {
            (note.pitch + shifts[outcome.job.key], note.velocity): note
            for note in outcome.notes
            if note.audio is not None
        }
        for outcome in render_all(asked, workers=workers)
    }


@dataclass(slots=True, kw_only=True)
class _Stage:
    """Renders when the first row asks for a note, and hears each note once."""

    listener: Listener
    jobs: Mapping[int, RenderJob]
    sweep: Sweep
    workers: int | None
    heard: dict[Pair, list[Heard]] = field(default_factory=dict)

    def notes(self, pairs: Sequence[Pair]) -> list[Heard]:
        if not self.heard:
            rendered = render_sweep(
                {job.key: job for job in self.jobs.values()}, self.sweep, workers=self.workers
            )
            for number, job in self.jobs.items():
                for pair, note in rendered[job.key].items():
                    assert note.audio is not None
                    audio = note.audio.astype(np.float32) / np.float32(32768.0)
                    self.heard.setdefault(pair, []).append(
                        self.listener.hear(audio, instrument=number, pitch=pair[0], f0_midi=note.f0_midi)
                    )
        return [note for pair in pairs for note in self.heard.get(pair, [])]

    def row(self, pairs: Sequence[Pair]) -> Callable[[], Figures]:
        def compute() -> Figures:
            heard = self.notes(pairs)
            if not heard:
                return {"notes": 0.0, "instruments": 0.0}
            instruments = float(len({note.instrument for note in heard}))
            decoded = self.listener.through_the_codec(heard, note_f0)
            return {"instruments": instruments} | self.listener.on_the_map(heard) | decoded

        return compute


def playing_range(
    listener: Listener,
    notes: MapNotes,
    jobs: Mapping[str, RenderJob],
    *,
    count: int,
    seed: int,
    sweep: Sweep | None = None,
    workers: int | None = None,
) -> Study:
    """At most ``count`` held-out instruments. ``jobs``: how an instrument is rendered, by name (its notes are ignored).

    Raises DataError when no held-out instrument can be rendered anew (NSynth's cannot).
    """
    sweep = sweep or Sweep()
    heldout = [int(number) for number in np.unique(notes.instrument[np.isin(notes.split, HELD_OUT)])]
    playable = [number for number in heldout if notes.instruments[number] in jobs]
    if not playable:
        raise DataError(
            "no held-out instrument can be rendered anew: this study needs soundfont or FM instruments"
        )
    chosen = sorted(np.random.default_rng(seed).permutation(playable)[:count].tolist())
    stage = _Stage(
        listener=listener,
        jobs={number: jobs[notes.instruments[number]] for number in chosen},
        sweep=sweep,
        workers=workers,
    )
    rows = [
        Row(labels={"varied": "pitch", "value": pitch}, compute=stage.row([(pitch, sweep.velocity)]))
        for pitch in sweep.pitches
    ]
    rows += [
        Row(labels={"varied": "velocity", "value": v}, compute=stage.row([(p, v) for p in sweep.at_pitches]))
        for v in sweep.velocities
    ]
    panels = ("displacement", "own_nearest", "pitch_accuracy", "codec_f0_kept")
    return Study(
        name="range",
        title="Beyond the pitches and velocities of the training",
        about=(
            f"{len(chosen)} held-out instruments rendered anew, pitches {sweep.pitches[0]} to {sweep.pitches[-1]} at "
            f"velocity {sweep.velocity}, velocities {sweep.velocities[0]} to {sweep.velocities[-1]} at pitches "
            f"{', '.join(map(str, sweep.at_pitches))}. Displacement: from the instrument's centre (its ordinary "
            "notes), relative to the map's spread. Own instrument nearest: among the held-out ones. The pitch head "
            "knows 48 to 72 only (shaded in the plot). Codec keeps F0: of voiced notes, within 50 cents."
        ),
        columns=COLUMNS,
        rows=rows,
        plot=lambda table: curves(
            table,
            "varied",
            "value",
            {COLUMNS[name]: name for name in panels},
            shaded={"pitch": (LOWEST_PITCH, LOWEST_PITCH + PITCHES - 1)},
        ),
    )
