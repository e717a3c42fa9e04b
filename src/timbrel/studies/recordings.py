"""Study ``recordings``: held-out notes with noise, in a room, out of tune. How far do they move on the map?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from timbrel.encoders.disturb import add_noise, room
from timbrel.notes.noteset import SAMPLE_RATE, NoteSet
from timbrel.pgesam.dataset import LOWEST_PITCH, MapNotes
from timbrel.studies.listening import Listener
from timbrel.studies.maps import HELD_OUT
from timbrel.studies.plots import curves
from timbrel.studies.table import Figures, Row, Study

Degrade = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
ROOM_WET_DB = -3.0


def _in_a_room(audio: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    return room(audio, seconds, ROOM_WET_DB, rng)


def detuned(audio: np.ndarray, cents: float, rng: np.random.Generator) -> np.ndarray:
    """Played faster or slower, as a tape would: ``cents`` higher. [n] → [about n · 2^(-cents / 1200)]."""
    return soxr.resample(audio, SAMPLE_RATE * 2.0 ** (cents / 1200.0), SAMPLE_RATE)


KINDS: dict[str, Degrade] = {
    "noise, SNR in dB": add_noise,
    "room, RT60 in s": _in_a_room,
    "detune, cents": detuned,
}
LEVELS: dict[str, tuple[float, ...]] = {
    "noise, SNR in dB": (50.0, 40.0, 30.0, 20.0, 10.0, 0.0),
    "room, RT60 in s": (0.1, 0.2, 0.4, 0.8, 1.6),
    "detune, cents": (-50.0, -25.0, -10.0, 10.0, 25.0, 50.0),
}
COLUMNS = {
    "displacement": "displacement",
    "own_nearest": "own instrument nearest",
    "pitch_accuracy": "pitch accuracy",
    "codec_lsd_db": "codec LSD, dB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    listener: Listener
    note_set: NoteSet
    notes: MapNotes
    chosen: np.ndarray
    seed: int
    degrade: Degrade | None = None
    level: float = 0.0

    def __call__(self) -> Figures:
        heard = []
        for entry in self.chosen:
            audio = self.note_set.float_audio([int(self.notes.row[entry])])[0]
            if self.degrade is not None:
                rng = np.random.default_rng((self.seed, int(entry)))
                audio = self.degrade(audio, self.level, rng)
            instrument, pitch = int(self.notes.instrument[entry]), LOWEST_PITCH + int(self.notes.pitch[entry])
            heard.append(self.listener.hear(audio, instrument=instrument, pitch=pitch))
        return self.listener.on_the_map(heard) | self.listener.through_the_codec(heard)


def recordings(
    listener: Listener,
    note_set: NoteSet,
    notes: MapNotes,
    *,
    count: int,
    seed: int,
    levels: Mapping[str, Sequence[float]] | None = None,
) -> Study:
    """At most ``count`` held-out notes, each clean and under every condition."""
    members = np.flatnonzero(np.isin(notes.split, HELD_OUT))
    chosen = np.sort(np.random.default_rng(seed).permutation(members)[:count])
    clean = _Condition(listener=listener, note_set=note_set, notes=notes, chosen=chosen, seed=seed)
    rows = [Row(labels={"condition": "clean", "level": "–"}, compute=clean)]
    for kind, degrade in KINDS.items():
        for level in (levels or LEVELS)[kind]:
            condition = _Condition(
                listener=listener,
                note_set=note_set,
                notes=notes,
                chosen=chosen,
                seed=seed,
                degrade=degrade,
                level=level,
            )
            rows.append(Row(labels={"condition": kind, "level": level}, compute=condition))
    return Study(
        name="recordings",
        title="Notes as a recording has them: noise, room, detune",
        about=(
            f"{len(chosen)} held-out notes. Displacement: from the instrument's own centre, relative to the map's "
            "spread (clean notes have the first line's). Own instrument nearest: among the held-out ones. The room "
            f"is noise that decays by 60 dB in the time given, {ROOM_WET_DB:g} dB against the direct sound. Pitch "
            "accuracy: the VAE's head, against the key. Dashed in the plot: clean."
        ),
        columns=COLUMNS,
        rows=rows,
        plot=lambda table: curves(
            table, "condition", "level", {heading: figure for figure, heading in COLUMNS.items()}, shaded={}
        ),
    )
