"""What the models learn from, and what the library holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from timbrel.params.values import Amount, Midi, Positive, Section, Share, Velocity


class Notes(Section):
    """Training notes: soundfont presets, FM instruments of our own, and NSynth where a folder is named."""

    general_midi: bool
    """Whether the General MIDI presets that pip installs are played."""
    soundfonts: tuple[str, ...]
    """SF2 files to play as well; one that is not there is left out, and the report says so."""
    max_presets: Positive
    """Presets of each soundfont, at most."""
    fm_instruments: Annotated[int, Field(ge=0)]
    """FM instruments that are drawn from the seed and rendered."""
    pitch_low: Midi
    """Lowest MIDI pitch."""
    pitch_high: Midi
    """Highest MIDI pitch; every instrument is played at each between, both ends included."""
    velocity: Velocity
    """MIDI velocity of these notes."""
    velocity_notes: Annotated[int, Field(ge=0)]
    """Further notes of each instrument, softer and harder."""
    velocities: tuple[Velocity, Velocity]
    """Lowest and highest velocity of those."""
    nsynth: str | None
    """Folder with NSynth as it is unpacked (`timbrel data fetch nsynth`); null: without."""
    instruments_per_family: Positive | None
    """Instruments of each family and split, at most; null: all."""
    heldout_families: tuple[str, ...]
    """Families of which every instrument is held out for the test."""
    validation_share: Share
    """Share of the other instruments that is for validation."""
    test_share: Share
    """Share of them that is for the test."""
    pitched_share: Share
    """So many of an instrument's notes must sound, and of these so many at a constant distance from their keys."""
    duplicate_db: Amount
    """Instruments whose spectra differ by less than this, in dB, are one."""


class Patches(Section):
    """The FM voices and the user's banks: what the encoder trains on, and what the library holds."""

    library_voices: Positive
    """Voices of our own that are drawn for the library."""
    training_voices: Positive
    """Voices that are drawn, from another seed, for the encoder to learn from."""
    library_pitches: Annotated[tuple[Midi, ...], Field(min_length=5)]
    """MIDI pitches at which every patch of the library is rendered."""
    library_velocity: Velocity
    """Velocity of these renders."""
    training_renders: Annotated[int, Field(ge=2)]
    """Renders of each voice that the encoder learns from, at pitches and velocities drawn from the two spans below."""
    training_pitches: tuple[Midi, Midi]
    """Lowest and highest pitch of those."""
    training_velocities: tuple[Velocity, Velocity]
    """Lowest and highest velocity of those."""
    validation_share: Share
    """Share of the encoder's voices that is for validation."""
    pitched_share: Share
    """As for notes: the share of renders that must sound, and at a constant distance from their keys."""
    duplicate_db: Amount
    """Patches whose spectra differ by less than this, in dB, are one."""
    banks: str
    """Folder with banks of one's own: `.syx` files of DX7 voices, `.sf2` soundfonts."""
