"""``pipelines/encoder/params.yaml``: the settings of the timbre encoder's own pipeline."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from timbrel.encoders.style_picture import FRAMES
from timbrel.params import Amount, Midi, Positive, Rate, Section, Share, Velocity


class Corpus(Section):
    """``soundfonts`` and ``recordings`` (folders) that are not there are left out, and named in the report."""

    seed: Annotated[int, Field(ge=0)]
    soundfonts: tuple[str, ...]
    max_presets: Positive
    pitches: Annotated[tuple[Midi, ...], Field(min_length=2)]
    velocity: Velocity
    recordings: tuple[str, ...]


class Taken(Section):
    """Of each instrument of a source: ``notes`` as they are, and how many also ``resampled`` and ``reshaped``."""

    notes: Positive
    resampled: Annotated[int, Field(ge=0)]
    reshaped: Annotated[int, Field(ge=0)]


class Examples(Section):
    """What is taken of each source; ``components``: principal components of the teacher's style."""

    seed: Annotated[int, Field(ge=0)]
    components: Positive
    notes: Taken
    patches: Taken
    wide: Taken
    synthetic: Taken
    presets: Taken
    recordings: Taken


class Style(Section):
    """As in ``style_training.Settings``."""

    seed: Annotated[int, Field(ge=0)]
    steps: Positive
    batch: Positive
    crop: Annotated[int, Field(ge=40, le=FRAMES)]
    apart_share: Share
    normalised_share: Share
    learning_rate: Rate
    style_weight: Amount
    noisy_share: Share


class Readout(Section):
    """``size``: of a style."""

    seed: Annotated[int, Field(ge=0)]
    size: Positive


class Training(Section):
    """``scaffold``: its hidden width; ``scaffold_weight``: worth of its loss against that of the contrast."""

    seed: Annotated[int, Field(ge=0)]
    channels: tuple[Positive, Positive, Positive, Positive]
    embedding_size: Positive
    scaffold: Positive
    steps: Positive
    batch_instruments: Positive
    learning_rate: Rate
    temperature: Rate
    scaffold_weight: Amount
    near_pitch_share: Share


class Settings(Section):
    """``pipelines/encoder/params.yaml``."""

    corpus: Corpus
    examples: Examples
    style: Style
    readout: Readout
    training: Training
