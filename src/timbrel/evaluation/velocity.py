"""What the velocity token is worth: real notes of other velocities, written at their own velocity and at the map's.

The map knows notes of one velocity. A held-out instrument's note of another one is written twice, at the instrument's
place and the note's pitch, and both are compared with the real note. All notes peak at the same level, so what is
measured is timbre. How far the real notes of both velocities lie apart says how much there was to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from timbrel.evaluation.listening import HeardNote, Job, NoteJob
from timbrel.evaluation.report import share
from timbrel.evaluation.written import Trained, write
from timbrel.pgesam.dataset import MAIN_VELOCITY, MapNotes

DEFINITIONS = {
    "velocity": "held-out notes of other velocities, written at their instrument's place and their pitch: own, at "
    "their velocity; main, at the map's; own_nearer: share of notes whose embedding is nearer to own; real_change_mse: "
    "between the real notes of both velocities, where there are both; changed_most: the half of those in which it is "
    "larger; lsd_db on decoded audio of a sample",
}


# Softest and hardest MIDI velocity of each group told apart.
VELOCITY_BANDS = ((1, 49), (50, 74), (75, 99), (101, 127))


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """Real notes of other velocities. ``notes`` [n] with the engine of each, ``source`` str [n]; ``own`` and ``main``
    what the generator writes for them, float32 [n, frames, 128]. Mean squared errors over the frames that the VAE
    sees, float64 [n]: ``own_error`` and ``main_error`` to the real note; ``change`` between the real note and that of
    the map's velocity, nan where there is none.
    """

    notes: MapNotes
    source: np.ndarray
    own: np.ndarray
    main: np.ndarray
    own_error: np.ndarray
    main_error: np.ndarray
    change: np.ndarray

    def __len__(self) -> int:
        return len(self.notes)


def struck(trained: Trained, notes: MapNotes, source: np.ndarray) -> Struck:
    """Write the held-out ones of ``notes`` (any velocities, their engines ``source`` [n]) whose instrument has a place
    on the map; ``trained.notes`` are those of the map's velocity.
    """
    number_of = {name: number for number, name in enumerate(trained.notes.instruments)}
    placed = np.array([number_of.get(name, -1) for name in notes.instruments])[notes.instrument]
    chosen = np.flatnonzero((notes.velocity != MAIN_VELOCITY) & (notes.split != "train") & (placed >= 0))
    notes, source, instrument = notes.take(chosen), source[chosen], placed[chosen]

    frames, seen = trained.generator.shape.frames, trained.vae.shape.frames
    if not len(notes):
        nothing, none = np.zeros((0, frames, trained.embeddings.shape[2]), np.float32), np.zeros(0)
        return Struck(
            notes=notes,
            source=source,
            own=nothing,
            main=nothing,
            own_error=none,
            main_error=none,
            change=none,
        )
    position = trained.places[instrument]
    own = write(trained, position, notes.pitch, velocity=notes.velocity, frames=frames)
    main = write(trained, position, notes.pitch, frames=frames)
    truth = np.asarray(trained.embeddings[notes.row, :seen], dtype=np.float32)
    known = {
        (int(instrument), int(pitch)): int(row)
        for instrument, pitch, row in zip(
            trained.notes.instrument, trained.notes.pitch, trained.notes.row, strict=True
        )
    }
    partner = np.array(
        [known.get(key, -1) for key in zip(instrument.tolist(), notes.pitch.tolist(), strict=True)]
    )
    change = _error(np.asarray(trained.embeddings[partner, :seen], dtype=np.float32), truth)
    return Struck(
        notes=notes,
        source=source,
        own=own,
        main=main,
        own_error=_error(own[:, :seen], truth),
        main_error=_error(main[:, :seen], truth),
        change=np.where(partner >= 0, change, np.nan),
    )


def jobs(made: Struck, audio: np.ndarray, chosen: np.ndarray, *, frames: int) -> list[Job]:
    """What has to be heard of the entries ``chosen``: all at their own velocity, then all at the map's.

    ``audio`` int16 [N, samples] are the real notes; the LSD is taken over the first ``frames``.
    """
    return [
        NoteJob(
            embedding=written[i],
            reference=np.asarray(audio[made.notes.row[i]]),
            f0=False,
            lsd_frames=(frames,),
        )
        for written in (made.own, made.main)
        for i in chosen
    ]


def figures(made: Struck, chosen: np.ndarray, heard: Sequence[HeardNote]) -> dict[str, Any]:
    """The ``velocity`` part of the report; ``heard`` answers ``jobs`` for ``chosen``. Empty without such notes."""
    if not len(made):
        return {}
    everything = np.ones(len(made), dtype=bool)
    known = made.change[np.isfinite(made.change)]
    lsd = np.array([note.lsd_db[0] for note in heard]).reshape(2, -1)
    # nan, where there is no change to know, is not larger than anything.
    most = made.change >= np.median(known) if len(known) else ~everything
    return {
        **_group(made, everything),
        "instruments": len(np.unique(made.notes.instrument)),
        "changed_most": _group(made, most),
        "by_source": {str(name): _group(made, made.source == name) for name in np.unique(made.source)},
        "by_velocity": {
            f"{low}-{high}": _group(made, band)
            for low, high in VELOCITY_BANDS
            if (band := (made.notes.velocity >= low) & (made.notes.velocity <= high)).any()
        },
        "lsd_db": {
            "notes": len(chosen),
            "own": float(lsd[0].mean()),
            "main": float(lsd[1].mean()),
            "own_nearer": share(int((lsd[0] < lsd[1]).sum()), len(chosen)),
        },
    }


def _group(made: Struck, members: np.ndarray) -> dict[str, Any]:
    if not members.any():
        return {"notes": 0}
    own, main, change = made.own_error[members], made.main_error[members], made.change[members]
    change = change[np.isfinite(change)]
    return {
        "notes": int(members.sum()),
        "embedding_mse": {"own": float(own.mean()), "main": float(main.mean())},
        "own_nearer": share(int((own < main).sum()), len(own)),
        "real_change_mse": float(change.mean()) if len(change) else float("nan"),
    }


def _error(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Per note: [n, frames, 128] twice → float64 [n]."""
    return np.mean((one - other) ** 2, axis=(1, 2), dtype=np.float64)
