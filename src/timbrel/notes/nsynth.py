"""NSynth, read exactly as published.

    <folder>/nsynth-{train,valid,test}/examples.json    note_str -> facts
    <folder>/nsynth-{train,valid,test}/audio/<note_str>.wav   16 kHz mono 16-bit, 4 s

(J. Engel et al., "Neural Audio Synthesis of Musical Notes with WaveNet Autoencoders", ICML 2017; CC BY 4.0.)
The published validation and test sets share their instruments. No instrument may be in two splits here, so each
of those is given to one of the two by the seed, with its notes from both.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from timbrel.errors import DataError
from timbrel.notes.families import FAMILIES
from timbrel.notes.noteset import NOTE_SAMPLES, SAMPLE_RATE, Note, NoteSetWriter, quantise
from timbrel.notes.render import SILENCE_PEAK, RenderedNote, map_jobs, measure_f0, nothing
from timbrel.notes.splits import assign_splits

PARTS = ("train", "valid", "test")
_WANTED = {
    "note_str": str,
    "instrument_str": str,
    "instrument_family_str": str,
    "instrument_source_str": str,
    "pitch": int,
    "velocity": int,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One published note."""

    note_id: str
    instrument: str
    family: str
    source: str
    pitch: int
    velocity: int
    part: str
    wav: Path


def read_examples(folder: Path, part: str) -> list[Example]:
    """All notes of ``nsynth-<part>``, ordered by note_str; [] when that part is not there.

    Raises DataError when examples.json is not what NSynth publishes.
    """
    table = folder / f"nsynth-{part}" / "examples.json"
    if not table.is_file():
        return []
    try:
        facts = json.loads(table.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{table} is not JSON ({error}): unpack the archive again") from error
    if not isinstance(facts, dict):
        raise DataError(f"{table} does not map note names to facts: is it NSynth's json/wav archive?")
    examples = []
    for name in sorted(facts):
        fact = facts[name]
        faulty = [key for key, kind in _WANTED.items() if not isinstance(fact.get(key), kind)]
        if faulty:
            raise DataError(
                f"{table}: note {name} lacks {', '.join(faulty)}: is it NSynth's json/wav archive?"
            )
        if fact["instrument_family_str"] not in FAMILIES:
            raise DataError(f"{table}: note {name} has the unknown family {fact['instrument_family_str']!r}")
        examples.append(
            Example(
                note_id=fact["note_str"],
                instrument=fact["instrument_str"],
                family=fact["instrument_family_str"],
                source=fact["instrument_source_str"],
                pitch=fact["pitch"],
                velocity=fact["velocity"],
                part=part,
                wav=table.parent / "audio" / f"{fact['note_str']}.wav",
            )
        )
    return examples


def select_examples(
    examples: Sequence[Example],
    *,
    pitches: Collection[int],
    velocities: Collection[int],
    instruments_per_family: int,
    seed: int,
) -> list[Example]:
    """Notes in range, of at most ``instruments_per_family`` instruments of each family.

    The cap counts instruments, never notes. Those that cover most of the range come first (a note missing is a
    hole in the map); equals are ordered by the seed.
    """
    fitting = [each for each in examples if each.pitch in pitches and each.velocity in velocities]
    covered = Counter(each.instrument for each in fitting)
    families: dict[str, set[str]] = defaultdict(set)
    for each in fitting:
        families[each.family].add(each.instrument)
    chosen: set[str] = set()
    for family in sorted(families):
        names = sorted(families[family])
        order = np.random.default_rng((seed, FAMILIES.index(family))).permutation(len(names))
        ranked = sorted(range(len(names)), key=lambda at: (-covered[names[at]], order[at]))
        chosen.update(names[at] for at in ranked[:instruments_per_family])
    return [each for each in fitting if each.instrument in chosen]


def _load(example: Example) -> tuple[RenderedNote, ...]:
    """Runs in a worker: read, resample, measure."""
    audio, rate = soundfile.read(example.wav, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    if not np.isfinite(mono).all():
        return (nothing(example.pitch, example.velocity, "not_finite"),)
    if float(np.abs(mono).max(initial=0.0)) < SILENCE_PEAK:
        return (nothing(example.pitch, example.velocity, "silent"),)
    resampled = soxr.resample(mono, rate, SAMPLE_RATE)[:NOTE_SAMPLES]
    pcm = quantise(np.pad(resampled, (0, NOTE_SAMPLES - len(resampled))))
    midi, confidence = measure_f0(pcm)
    return (
        RenderedNote(
            pitch=example.pitch,
            velocity=example.velocity,
            audio=pcm,
            fault="",
            f0_midi=midi,
            f0_confidence=confidence,
        ),
    )


def collect_nsynth(
    folder: Path,
    nsynth: Path,
    *,
    pitches: Collection[int],
    velocities: Collection[int],
    instruments_per_family: int,
    seed: int,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write a NoteSet of NSynth's notes to ``folder``; returns its report.

    Published training instruments become ``train``; those of valid and test are halved by instrument into
    ``validation`` and ``test``. Each side has its own cap. The cap of the held-out side is twice
    ``instruments_per_family``, for it is shared between two splits.
    """
    choose = partial(select_examples, pitches=pitches, velocities=velocities, seed=seed)
    training = choose(read_examples(nsynth, "train"), instruments_per_family=instruments_per_family)
    held_out = choose(
        read_examples(nsynth, "valid") + read_examples(nsynth, "test"),
        instruments_per_family=2 * instruments_per_family,
    )
    if not training and not held_out:
        raise DataError(f"{nsynth} holds no nsynth-train, -valid or -test with notes in the range asked for")
    splits = dict.fromkeys((each.instrument for each in training), "train")
    others = {each.instrument: each.family for each in held_out if each.instrument not in splits}
    splits |= assign_splits(others, {"test": 0.5}, seed=seed, rest="validation")
    chosen = training + [each for each in held_out if each.instrument in others]
    dropped: Counter[str] = Counter()
    kept: list[Example] = []
    with NoteSetWriter(folder) as writer:
        for example, outcome in zip(chosen, _outcomes(chosen, workers, progress), strict=True):
            fault = outcome[0] or outcome[1][0].fault
            if fault:
                dropped[fault] += 1
                continue
            (found,) = outcome[1]
            assert found.audio is not None
            kept.append(example)
            writer.add(
                Note(
                    row=0,
                    note_id=example.note_id,
                    instrument=example.instrument,
                    name=example.instrument,
                    family=example.family,
                    source=example.source,
                    pitch=example.pitch,
                    velocity=example.velocity,
                    split=splits[example.instrument],
                    f0_midi=found.f0_midi,
                    f0_confidence=found.f0_confidence,
                ),
                found.audio,
            )
        instruments = {each.instrument: each for each in kept}
        counts = Counter((each.family, splits[each.instrument]) for each in instruments.values())
        writer.report = {
            "instruments": len(instruments),
            "notes": len(kept),
            "dropped": dict(sorted(dropped.items())),
            "families": {f"{family}/{split}": count for (family, split), count in sorted(counts.items())},
            "source": "NSynth (CC BY 4.0)",
        }
        return writer.report


def _outcomes(
    chosen: Sequence[Example], workers: int | None, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[str, tuple[RenderedNote, ...]]]:
    for done, result in enumerate(map_jobs(chosen, _load, workers=workers), start=1):
        progress("notes", done, len(chosen))
        yield result.fault, result.value or ()
