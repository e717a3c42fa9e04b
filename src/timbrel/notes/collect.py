"""Training notes: soundfont presets and FM voices (or NSynth), rendered, checked, split, written as a NoteSet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timbrel.errors import DataError
from timbrel.notes.dx7 import to_packed
from timbrel.notes.families import FAMILIES, family_of_name, family_of_program
from timbrel.notes.fm_banks import generate
from timbrel.notes.noteset import Note, NoteSetWriter
from timbrel.notes.render import Rendered, RenderJob, render_all
from timbrel.notes.selection import Duplicates, sounding_offset, summarise
from timbrel.notes.soundfonts import DRUM_BANK, find_fonts, general_midi_font, list_presets
from timbrel.notes.splits import assign_splits

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """Something to render: ``ident`` is "<family>_<source>_<id>", NSynth's instrument_str."""

    ident: str
    name: str
    family: str
    source: str
    job: RenderJob


def soundfont_instruments(
    fonts: Sequence[Path], *, notes: tuple[tuple[int, int], ...], limit: int
) -> list[Instrument]:
    """Melodic presets of ``fonts``, at most ``limit`` (spread evenly over the list), with their families."""
    found = []
    for font in fonts:
        for preset in list_presets(font):
            family = family_of_program(preset.program) if preset.bank < DRUM_BANK else None
            if family is not None:
                found.append((font, preset, family_of_name(preset.name) if preset.bank else family))
    if len(found) > limit:
        found = [found[index * len(found) // limit] for index in range(limit)]
    counts: Counter[str] = Counter()
    instruments = []
    for font, preset, named in found:
        family = named or str(family_of_program(preset.program))
        ident = f"{family}_soundfont_{counts[family]:03d}"
        counts[family] += 1
        job = RenderJob(key=ident, notes=notes, font=font, bank=preset.bank, program=preset.program)
        instruments.append(
            Instrument(ident=ident, name=preset.name, family=family, source="soundfont", job=job)
        )
    return instruments


def fm_instruments(count: int, *, seed: int, notes: tuple[tuple[int, int], ...]) -> list[Instrument]:
    """``count`` generated DX7 voices."""
    counts: Counter[str] = Counter()
    instruments = []
    for made in generate(count, seed=seed):
        ident = f"{made.family}_dx7_{counts[made.family]:03d}"
        counts[made.family] += 1
        job = RenderJob(key=ident, notes=notes, voice=to_packed(made.voice))
        instruments.append(
            Instrument(ident=ident, name=made.voice.name, family=made.family, source="dx7", job=job)
        )
    return instruments


def collect_notes(
    folder: Path,
    *,
    seed: int,
    general_midi: bool,
    soundfonts: Sequence[str],
    max_presets: int,
    fm_count: int,
    pitches: Sequence[int],
    velocity: int,
    shares: dict[str, float],
    pitched_share: float,
    duplicate_db: float,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Render and write the NoteSet of soundfont and FM instruments; returns its report.

    An instrument is kept with all its pitches or not at all. One that sounds whole semitones off its key (organs
    and basses drawn an octave down) is rendered again with the key moved, so that every note *sounds* at the
    pitch it is filed under.
    """
    fonts, absent = find_fonts(soundfonts)
    if general_midi:
        fonts.insert(0, general_midi_font())
    wanted = tuple((pitch, velocity) for pitch in pitches)
    instruments = soundfont_instruments(fonts, notes=wanted, limit=max_presets)
    instruments += fm_instruments(fm_count, seed=seed, notes=wanted)
    if not instruments:
        raise DataError(
            "no instruments: switch on notes.general_midi or name a soundfont in notes.soundfonts"
        )
    keeper = _Keeper(pitches=tuple(pitches), pitched_share=pitched_share, duplicates=Duplicates(duplicate_db))
    by_key = {each.job.key: each for each in instruments}
    with NoteSetWriter(folder) as writer:
        shifted: list[Instrument] = []
        total = len(instruments)
        for outcome in render_all(
            (each.job for each in instruments),
            workers=workers,
            report=lambda done: progress("instruments", done, total),
        ):
            again = keeper.take(by_key[outcome.job.key], outcome, writer)
            if again is not None:
                shifted.append(again)
        moved = {each.job.key: each for each in shifted}
        for outcome in render_all((each.job for each in shifted), workers=workers):
            keeper.take(moved[outcome.job.key], outcome, writer, moved=True)
        if not keeper.kept:
            raise DataError("no instrument was kept: every one was silent or unpitched; check the soundfonts")
        splits = assign_splits({each.ident: each.family for each in keeper.kept}, shares, seed=seed)
        writer.set_splits(splits)
        writer.report = {
            **keeper.report(splits),
            "instruments_tried": total,
            "soundfonts": [font.name for font in fonts],
            "soundfonts_absent": len(absent),
            "rendered_at_a_moved_key": len(shifted),
        }
        return writer.report


class _Keeper:
    """Decides on each instrument, writes what is kept, counts what is not."""

    def __init__(self, *, pitches: tuple[int, ...], pitched_share: float, duplicates: Duplicates) -> None:
        self._pitches = pitches
        self._share = pitched_share
        self._duplicates = duplicates
        self._dropped: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self.kept: list[Instrument] = []

    def take(
        self, instrument: Instrument, outcome: Rendered, writer: NoteSetWriter, *, moved: bool = False
    ) -> Instrument | None:
        """Keep or drop; returns the instrument with moved keys when it has to be rendered again."""
        fault = outcome.fault or next((note.fault for note in outcome.notes if note.fault), "")
        if fault:
            self._drop(instrument, fault, outcome.detail)
            return None
        offset = sounding_offset(self._pitches, [note.f0_midi for note in outcome.notes], share=self._share)
        if offset is None:
            self._drop(instrument, "unpitched", "no constant distance between key and F0")
            return None
        if round(offset) != 0:
            if moved or abs(offset) > 36:
                self._drop(instrument, "off_key", f"sounds {offset:+.2f} semitones off")
                return None
            keys = tuple((pitch - round(offset), velocity) for pitch, velocity in instrument.job.notes)
            return replace(instrument, job=replace(instrument.job, notes=keys))
        audio = [note.audio for note in outcome.notes if note.audio is not None]
        middle = audio[:: max(1, len(audio) // 3)]
        twin = self._duplicates.check(instrument.ident, middle)
        if twin is not None:
            self._drop(instrument, "duplicate", f"sounds like {twin}")
            return None
        for pitch, note in zip(self._pitches, outcome.notes, strict=True):
            assert note.audio is not None
            writer.add(
                Note(
                    row=0,
                    note_id=f"{instrument.ident}-{pitch:03d}-{note.velocity:03d}",
                    instrument=instrument.ident,
                    name=instrument.name,
                    family=instrument.family,
                    source=instrument.source,
                    pitch=pitch,
                    velocity=note.velocity,
                    split="train",  # the writer is told the splits when all is seen
                    f0_midi=note.f0_midi,
                    f0_confidence=note.f0_confidence,
                ),
                note.audio,
            )
        self.kept.append(instrument)
        return None

    def _drop(self, instrument: Instrument, reason: str, detail: str) -> None:
        self._dropped[reason] += 1
        self._details[instrument.ident] = f"{reason}: {instrument.name}: {detail}"

    def report(self, splits: dict[str, str]) -> dict[str, Any]:
        distinct = summarise(self._duplicates.nearest())
        return {
            "instruments": len(self.kept),
            "notes": len(self.kept) * len(self._pitches),
            "dropped": dict(sorted(self._dropped.items())),
            "dropped_instruments": dict(sorted(self._details.items())),
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
