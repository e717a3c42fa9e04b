"""``locate`` over the released bundle: voices of its library, played by their real engine, recorded in many ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from timbrel.audio import Audio
from timbrel.engine.engine import Engine
from timbrel.evaluation.locate import RECORDED_OTHERWISE, distance
from timbrel.evaluation.queries import job_of
from timbrel.library.tables import Patch
from timbrel.notes.render import render_all
from timbrel.stages.evaluate import open_engine

ROOT = Path(__file__).resolve().parents[2]
RATE = 24_000
KEYS = (36, 60, 84)
VOICES = 10
# The median distance of two voices on the map is about 0.75.
NEAR = 0.2


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(ROOT / "bundle") as opened:
        yield opened


@pytest.fixture(scope="module")
def played(engine: Engine) -> Mapping[int, list[tuple[Patch, np.ndarray]]]:
    """By sounding pitch: voices of the library that sound at the key pressed, and their notes float32 [96000]."""
    voices = [
        patch
        for patch in engine.bundle.patches
        if patch.engine == "dx7" and round(patch.offset_semitones) == 0
    ]
    chosen = [voices[n] for n in np.random.default_rng(4).choice(len(voices), VOICES, replace=False)]
    jobs = [job_of(patch, tuple((key, 100) for key in KEYS), ROOT / "banks") for patch in chosen]
    notes: dict[int, list[tuple[Patch, np.ndarray]]] = {key: [] for key in KEYS}
    for patch, outcome in zip(chosen, render_all(jobs), strict=True):
        for note in outcome.notes:
            if note.audio is not None and abs(note.f0_midi - note.pitch) < 0.5:
                notes[note.pitch].append((patch, note.audio.astype(np.float32) / 32768.0))
    return notes


def place(engine: Engine, samples: np.ndarray, *, refine: bool = False) -> np.ndarray:
    located = engine.locate(Audio(samples.astype(np.float32), RATE), refine=refine)
    return np.array([located.x, located.y])


def gap(one: np.ndarray, two: np.ndarray) -> float:
    return math.hypot(*(one - two))


def _much_later_and_longer(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([np.zeros(5 * RATE + 101), samples, np.zeros(3 * RATE)])


# Half a second does not tell how a note goes on: it is measured (reports/locate.json), and promised nothing.
WAYS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    **{name: way for name, way in RECORDED_OTHERWISE.items() if name != "cut_after_0.5_s"},
    "five_seconds_before_three_after": _much_later_and_longer,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_voice_stays_where_it_is_however_it_was_recorded(
    engine: Engine, played: Mapping[int, list[tuple[Patch, np.ndarray]]], way: str
) -> None:
    rng = np.random.default_rng(6)
    moved = [gap(place(engine, WAYS[way](samples, rng)), place(engine, samples)) for _, samples in played[60]]
    assert len(moved) >= VOICES - 2
    assert np.median(moved) < NEAR


@pytest.mark.parametrize("key", [36, 84])
def test_a_recording_outside_the_map_s_pitches_lies_near_its_voice(
    engine: Engine, played: Mapping[int, list[tuple[Patch, np.ndarray]]], key: int
) -> None:
    away, others = [], []
    patches = [patch for patch, _ in played[key]]
    for number, (patch, samples) in enumerate(played[key]):
        found = place(engine, samples)
        away.append(gap(found, np.array([patch.x, patch.y])))
        others += [
            gap(found, np.array([other.x, other.y])) for other in patches[:number] + patches[number + 1 :]
        ]
    assert np.median(away) < 0.5 * np.median(others)


def test_the_refined_note_is_nearer_to_the_recording(
    engine: Engine, played: Mapping[int, list[tuple[Patch, np.ndarray]]]
) -> None:
    distances = {False: [], True: []}  # type: dict[bool, list[float]]
    for _, samples in played[60][:4]:
        for refine, found in distances.items():
            x, y = place(engine, samples, refine=refine)
            made = engine.synthesize(x=x, y=y, pitch=60, seconds=4.0)
            found.append(distance(samples, made.samples))
    assert np.mean(distances[True]) < np.mean(distances[False])
