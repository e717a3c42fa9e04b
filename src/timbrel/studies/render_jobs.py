"""How the instruments of data/notes are rendered, so that a study can ask them for other notes."""

from __future__ import annotations

from timbrel.notes.collect import fm_instruments, soundfont_instruments
from timbrel.notes.plan import NotePlan
from timbrel.notes.render import RenderJob
from timbrel.notes.soundfonts import find_fonts, general_midi_font
from timbrel.params import Params


def render_jobs(params: Params, *, seed: int) -> dict[str, RenderJob]:
    """The job of each soundfont and FM instrument by its name; a study replaces the notes that it asks for.

    ``seed`` is the one that the notes stage drew its voices with.
    """
    wanted = params.notes
    fonts, _ = find_fonts(wanted.soundfonts)
    if wanted.general_midi:
        fonts.insert(0, general_midi_font())
    plan = NotePlan(
        pitches=(wanted.pitch_low,),
        velocity=wanted.velocity,
        velocity_notes=0,
        velocities=wanted.velocities,
        instruments_per_family=None,
        heldout_families=(),
        shares={},
    )
    instruments, _ = soundfont_instruments(fonts, plan, limit=wanted.max_presets, seed=seed)
    instruments += fm_instruments(wanted.fm_instruments, plan, seed=seed)
    return {each.ident: each.job for each in instruments}
