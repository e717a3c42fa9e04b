"""Training notes: soundfont presets and FM voices, rendered, checked, split, written as a NoteSet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from timbrel.errors import DataError
from timbrel.notes.dx7 import to_packed
from timbrel.notes.families import FAMILIES, family_of_name, family_of_program
from timbrel.notes.fm_banks import generate
from timbrel.notes.noteset import Note, NoteSetWriter
from timbrel.notes.plan import NotePlan, Pair, next_round, seeded_order
from timbrel.notes.render import Rendered, RenderedNote, RenderJob, measure_settled_f0, render_all
from timbrel.notes.selection import Duplicates, distance_db, picture, sounding_offset, summarise
from timbrel.notes.soundfonts import DRUM_BANK, Preset, find_fonts, general_midi_font, list_presets
from timbrel.notes.splits import assign_splits

Progress = Callable[[str, int, int], None]

# A pitch found at the second look has to be there at nearly every key.
SETTLED_SHARE = 0.8
# A further note nearer than this to the main one of its pitch says nothing about velocity: many soundfont presets
# play one sample at every velocity, and once peaks are alike, so are the notes.
HEARD_DB = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """Something to render: ``ident`` is "<family>_<source>_<id>", NSynth's instrument_str.

    ``notes``: the (pitch, velocity) that each of the job's notes is filed under; the job's keys may differ.
    """

    ident: str
    name: str
    family: str
    source: str
    notes: tuple[Pair, ...]
    job: RenderJob


def soundfont_instruments(
    fonts: Sequence[Path], plan: NotePlan, *, limit: int, seed: int
) -> tuple[list[Instrument], dict[str, int]]:
    """Melodic presets of ``fonts`` with their families, at most ``limit`` of each font (spread evenly over its list).

    Returns them, and how many presets of each font went over the limit.
    """
    counts: Counter[str] = Counter()
    instruments = []
    over = {}
    for font in fonts:
        found = [(preset, family) for preset in list_presets(font) if (family := _family(preset)) is not None]
        over[font.name] = max(0, len(found) - limit)
        if over[font.name]:
            found = [found[index * len(found) // limit] for index in range(limit)]
        for preset, family in found:
            ident = f"{family}_soundfont_{counts[family]:03d}"
            counts[family] += 1
            notes = plan.main + plan.extra(ident, seed=seed)
            job = RenderJob(key=ident, notes=notes, font=font, bank=preset.bank, program=preset.program)
            instruments.append(
                Instrument(
                    ident=ident, name=preset.name, family=family, source="soundfont", notes=notes, job=job
                )
            )
    return instruments, over


def _family(preset: Preset) -> str | None:
    """Of a melodic preset; banks other than General MIDI's first may hold anything under a number."""
    family = family_of_program(preset.program) if preset.bank < DRUM_BANK else None
    return (family_of_name(preset.name) or family) if family and preset.bank else family


def fm_instruments(count: int, plan: NotePlan, *, seed: int) -> list[Instrument]:
    """``count`` generated DX7 voices."""
    counts: Counter[str] = Counter()
    instruments = []
    for made in generate(count, seed=seed):
        ident = f"{made.family}_dx7_{counts[made.family]:03d}"
        counts[made.family] += 1
        notes = plan.main + plan.extra(ident, seed=seed)
        job = RenderJob(key=ident, notes=notes, voice=to_packed(made.voice))
        instruments.append(
            Instrument(
                ident=ident, name=made.voice.name, family=made.family, source="dx7", notes=notes, job=job
            )
        )
    return instruments


def collect_notes(
    folder: Path,
    plan: NotePlan,
    *,
    seed: int,
    general_midi: bool,
    soundfonts: Sequence[str],
    max_presets: int,
    fm_count: int,
    pitched_share: float,
    duplicate_db: float,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Render and write the NoteSet of soundfont and FM instruments; returns its report.

    An instrument is kept with all its pitches or not at all; of its further notes, those that sound, and otherwise
    than at the main velocity. One that
    sounds whole octaves off its key (organs and basses drawn an octave down) is rendered again with the key
    moved, so that every note *sounds* at the pitch it is filed under.
    """
    fonts, absent = find_fonts(soundfonts)
    if general_midi:
        fonts.insert(0, general_midi_font())
    instruments, over = soundfont_instruments(fonts, plan, limit=max_presets, seed=seed)
    instruments += fm_instruments(fm_count, plan, seed=seed)
    if not instruments:
        raise DataError(
            "no instruments: switch on notes.general_midi or name a soundfont in notes.soundfonts"
        )
    by_ident = {each.ident: each for each in instruments}
    pending = instruments
    if plan.instruments_per_family is not None:
        pending = [by_ident[ident] for ident in seeded_order(by_ident, seed=seed)]
    tried = moved = 0
    with NoteSetWriter(folder) as writer:
        keeper = _Keeper(writer, plan, pitched_share=pitched_share, duplicates=Duplicates(duplicate_db))
        while True:
            batch, pending = next_round(pending, keeper.per_family, plan.instruments_per_family)
            if not batch:
                break
            again: list[Instrument] = []
            for instrument, outcome in zip(
                batch, render_all([each.job for each in batch], workers=workers), strict=True
            ):
                tried += 1
                progress("instruments", tried, len(instruments))
                if (shifted := keeper.take(instrument, outcome)) is not None:
                    again.append(shifted)
            moved += len(again)
            for instrument, outcome in zip(
                again, render_all([each.job for each in again], workers=workers), strict=True
            ):
                keeper.take(instrument, outcome, moved=True)
        if not keeper.kept:
            raise DataError("no instrument was kept: every one was silent or unpitched; check the soundfonts")
        splits = keeper.split(seed)
        writer.set_splits(splits)
        writer.report = {
            **keeper.report(splits),
            "instruments_tried": tried,
            "instruments_beyond_the_cap": len(pending),
            "soundfonts": [font.name for font in fonts],
            "soundfonts_absent": len(absent),
            "presets_beyond_the_limit": over,
            "rendered_at_a_moved_key": moved,
        }
        return writer.report


class _Keeper:
    """Decides on each instrument, writes what is kept, counts what is not."""

    def __init__(
        self, writer: NoteSetWriter, plan: NotePlan, *, pitched_share: float, duplicates: Duplicates
    ) -> None:
        self._writer = writer
        self._plan = plan
        self._share = pitched_share
        self._duplicates = duplicates
        self._dropped: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self._extra: Counter[str] = Counter()
        self._softest: dict[str, list[float]] = {}
        self._settled: list[str] = []
        self.kept: list[Instrument] = []
        self.per_family: Counter[str] = Counter()

    def take(self, instrument: Instrument, outcome: Rendered, *, moved: bool = False) -> Instrument | None:
        """Keep or drop; returns the instrument with moved keys when it has to be rendered again."""
        count = len(self._plan.pitches)
        main = outcome.notes[:count]
        fault = outcome.fault or next((note.fault for note in main if note.fault), "")
        if fault:
            self._drop(instrument, fault, outcome.detail)
            return None
        notes, offset = self._pitched(instrument, outcome.notes)
        if offset is None:
            self._drop(instrument, "unpitched", "F0 is not a constant number of octaves from the key")
            return None
        if round(offset) != 0:
            if moved or abs(offset) > 36:
                self._drop(instrument, "off_key", f"sounds {offset:+.2f} semitones off")
                return None
            keys = tuple((pitch - round(offset), velocity) for pitch, velocity in instrument.notes)
            return replace(instrument, job=replace(instrument.job, notes=keys))
        audio = [note.audio for note in main if note.audio is not None]
        twin = self._duplicates.check(instrument.ident, audio[:: max(1, count // 3)])
        if twin is not None:
            self._drop(instrument, "duplicate", f"sounds like {twin}")
            return None
        self._write(instrument, notes)
        self.kept.append(instrument)
        self.per_family[instrument.family] += 1
        if notes != outcome.notes:
            self._settled.append(instrument.ident)
        return None

    def _pitched(
        self, instrument: Instrument, notes: tuple[RenderedNote, ...]
    ) -> tuple[tuple[RenderedNote, ...], float | None]:
        """The notes, and the semitones from filed pitch to F0; None when that distance is not constant, or not
        whole octaves: a twelfth down is what an estimator makes of a bell, not what anyone tunes one to.

        A second look, by the period of what still rings, is taken at what fails the first one: the upper modes of
        a bar or a bell are no multiples of the pitch it is heard at, and mislead an estimator while they sound.
        """
        count = len(self._plan.pitches)
        pitches = [pitch for pitch, _ in instrument.notes[:count]]
        offset = sounding_offset(pitches, [note.f0_midi for note in notes[:count]], share=self._share)
        if offset is not None and round(offset) % 12 == 0:
            return notes, offset
        settled = []
        for note in notes:
            if note.audio is not None:
                midi, confidence = measure_settled_f0(note.audio)
                note = replace(note, f0_midi=midi, f0_confidence=confidence)
            settled.append(note)
        share = max(self._share, SETTLED_SHARE)
        offset = sounding_offset(pitches, [note.f0_midi for note in settled[:count]], share=share)
        return tuple(settled), None if offset is None or round(offset) % 12 else offset

    def _write(self, instrument: Instrument, notes: Sequence[RenderedNote]) -> None:
        count = len(self._plan.pitches)
        extra = list(zip(instrument.notes[count:], notes[count:], strict=True))
        kept = list(zip(instrument.notes[:count], notes[:count], strict=True))
        pictures: dict[int, npt.NDArray[np.float32]] = {}
        softest: tuple[int, float] | None = None
        for (pitch, velocity), note in extra:
            fault = note.fault
            if note.audio is not None:
                if pitch not in pictures:
                    usual = notes[self._plan.pitches.index(pitch)].audio
                    assert usual is not None
                    pictures[pitch] = picture(usual)
                differs = float(distance_db(picture(note.audio), pictures[pitch][None])[0])
                softest = min(softest or (velocity, differs), (velocity, differs))
                fault = "" if differs >= HEARD_DB else "sounds_as_the_main_one"
            self._extra[fault or "kept"] += 1
            if not fault:
                kept.append(((pitch, velocity), note))
        if softest is not None:
            self._softest.setdefault(instrument.source, []).append(softest[1])
        for (pitch, velocity), note in kept:
            assert note.audio is not None
            self._writer.add(
                Note(
                    row=0,
                    note_id=f"{instrument.ident}-{pitch:03d}-{velocity:03d}",
                    instrument=instrument.ident,
                    name=instrument.name,
                    family=instrument.family,
                    source=instrument.source,
                    pitch=pitch,
                    velocity=velocity,
                    split="train",  # the writer is told the splits when all is seen
                    f0_midi=note.f0_midi,
                    f0_confidence=note.f0_confidence,
                ),
                note.audio,
            )

    def _drop(self, instrument: Instrument, reason: str, detail: str) -> None:
        self._dropped[reason] += 1
        self._details[instrument.ident] = f"{reason}: {instrument.name}: {detail}"

    def split(self, seed: int) -> dict[str, str]:
        """Split of every instrument kept.

        One whose pitch only the second look found is not held out: what is generated for held-out instruments is
        judged by an F0 estimator, and that one fails on the instrument's own notes.
        """
        families = {each.ident: each.family for each in self.kept}
        heldout = self._plan.heldout_families
        known = {ident: family for ident, family in families.items() if ident not in self._settled}
        splits = assign_splits(known, self._plan.shares, seed=seed, heldout_families=heldout)
        return {
            ident: splits.get(ident, "test" if family in heldout else "train")
            for ident, family in families.items()
        }

    def report(self, splits: dict[str, str]) -> dict[str, Any]:
        distinct = summarise(self._duplicates.nearest())
        return {
            "instruments": len(self.kept),
            "notes": len(self.kept) * len(self._plan.pitches) + self._extra["kept"],
            "velocity_notes": dict(sorted(self._extra.items())),
            "softest_note_differs_db": {
                source: {
                    "median": round(float(np.median(found)), 2),
                    "share_from_2_db": round(float(np.mean(np.array(found) >= 2.0)), 3),
                }
                for source, found in sorted(self._softest.items())
            },
            "dropped": dict(sorted(self._dropped.items())),
            "dropped_instruments": dict(sorted(self._details.items())),
            "pitch_at_second_look": sorted(self._settled),
            "families": family_table((each.family, splits[each.ident]) for each in self.kept),
            "sources": dict(sorted(Counter(each.source for each in self.kept).items())),
            "nearest_neighbour_db": {"median": distinct.median_db, "least": distinct.least_db},
        }


def family_table(pairs: Any) -> dict[str, dict[str, int]]:
    """Instruments by family and split."""
    counts = Counter(pairs)
    splits = sorted({split for _, split in counts})
    return {
        family: {split: counts[family, split] for split in splits}
        for family in FAMILIES
        if any(counts[family, split] for split in splits)
    }
