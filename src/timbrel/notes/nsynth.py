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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from timbrel.errors import DataError
from timbrel.notes.collect import family_table
from timbrel.notes.families import FAMILIES
from timbrel.notes.noteset import NOTE_SAMPLES, SAMPLE_RATE, Note, NoteSetWriter, quantise
from timbrel.notes.plan import NotePlan, seeded_order
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
    examples: Sequence[Example], plan: NotePlan, *, per_family: int | None, seed: int
) -> list[Example]:
    """Notes that ``plan`` asks for, of at most ``per_family`` instruments of each family, in the order given.

    The cap counts instruments, never notes. Those that cover most of the range come first (a note missing is a
    hole in the map); equals are ordered by the seed. The further notes are those published within the plan's
    velocities, as many of each instrument as it asks for, chosen by the seed.
    """
    covered: Counter[str] = Counter()
    families: dict[str, str] = {}
    others: dict[str, list[str]] = defaultdict(list)
    wanted: set[str] = set()
    low, high = plan.velocities
    for each in examples:
        if each.pitch not in plan.pitches:
            continue
        if each.velocity == plan.velocity:
            covered[each.instrument] += 1
            families[each.instrument] = each.family
            wanted.add(each.note_id)
        elif low <= each.velocity <= high:
            others[each.instrument].append(each.note_id)
    taken: Counter[str] = Counter()
    chosen: set[str] = set()
    for name in sorted(seeded_order(families, seed=seed), key=lambda name: -covered[name]):
        if per_family is None or taken[families[name]] < per_family:
            taken[families[name]] += 1
            chosen.add(name)
            wanted.update(seeded_order(others[name], seed=seed)[: plan.velocity_notes])
    return [each for each in examples if each.instrument in chosen and each.note_id in wanted]


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
    plan: NotePlan,
    *,
    seed: int,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write a NoteSet of NSynth's notes to ``folder``; returns its report.

    Published training instruments become ``train``; those of valid and test are halved by instrument into
    ``validation`` and ``test`` (``plan.shares`` is not used). Each side has its own cap. The cap of the held-out
    side is twice ``plan.instruments_per_family``, for it is shared between two splits.
    """
    cap = plan.instruments_per_family
    choose = partial(select_examples, plan=plan, seed=seed)
    training = choose(read_examples(nsynth, "train"), per_family=cap)
    held_out = choose(
        read_examples(nsynth, "valid") + read_examples(nsynth, "test"), per_family=cap and 2 * cap
    )
    if not training and not held_out:
        raise DataError(f"{nsynth} holds no nsynth-train, -valid or -test with notes in the range asked for")
    unseen = plan.heldout_families
    splits = {each.instrument: "test" if each.family in unseen else "train" for each in training}
    others = {each.instrument: each.family for each in held_out if each.instrument not in splits}
    splits |= assign_splits(others, {"test": 0.5}, seed=seed, rest="validation", heldout_families=unseen)
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
        writer.report = {
            "instruments": len(instruments),
            "notes": len(kept),
            "velocity_notes": {"kept": sum(each.velocity != plan.velocity for each in kept)},
            "dropped": dict(sorted(dropped.items())),
            "families": family_table((each.family, splits[name]) for name, each in instruments.items()),
            "sources": dict(sorted(Counter(each.source for each in instruments.values()).items())),
            "data": "NSynth (CC BY 4.0)",
        }
        return writer.report


def _outcomes(
    chosen: Sequence[Example], workers: int | None, progress: Callable[[str, int, int], None]
) -> Iterator[tuple[str, tuple[RenderedNote, ...]]]:
    for done, result in enumerate(map_jobs(chosen, _load, workers=workers), start=1):
        progress("notes", done, len(chosen))
        yield result.fault, result.value or ()
