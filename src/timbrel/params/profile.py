"""The whole file, and the rules between its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from timbrel.notes.families import FAMILIES
from timbrel.params.data import Notes, Patches
from timbrel.params.networks import Codec, Embeddings, Encoder, Generator, Hardware, Vae
from timbrel.params.results import Evaluation, Index, Library, PgesamEvaluation, Promotion
from timbrel.params.values import Section


class Params(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0)]
    """What everything random is drawn from."""
    hardware: Hardware
    notes: Notes
    patches: Patches
    codec: Codec
    embeddings: Embeddings
    encoder: Encoder
    vae: Vae
    generator: Generator
    pgesam_evaluation: PgesamEvaluation
    library: Library
    index: Index
    evaluation: Evaluation
    promotion: Promotion


# A rule between settings: the first path is the one blamed; checked when none of its settings is wrong by itself.
Rule = tuple[tuple[str, ...], Callable[..., bool], str]
RULES: tuple[Rule, ...] = (
    (
        ("notes.pitch_low", "notes.pitch_high"),
        lambda low, high: low <= high,
        "must not lie above notes.pitch_high",
    ),
    (
        ("notes.validation_share", "notes.test_share"),
        lambda validation, test: validation + test < 1,
        "leaves nothing to train on together with notes.test_share",
    ),
    (
        ("notes.soundfonts", "notes.general_midi", "notes.fm_instruments", "notes.nsynth"),
        lambda fonts, midi, fm, nsynth: bool(fonts or midi or fm or nsynth),
        "no source of notes: name a soundfont or an NSynth folder, or set general_midi or fm_instruments",
    ),
    (("notes.velocities",), lambda pair: pair[0] <= pair[1], "must be [lowest, highest]"),
    (
        ("notes.heldout_families",),
        lambda names: set(names) < set(FAMILIES),
        f"must be some, not all, of {', '.join(FAMILIES)}",
    ),
    (("patches.training_pitches",), lambda pair: pair[0] <= pair[1], "must be [lowest, highest]"),
    (("patches.training_velocities",), lambda pair: pair[0] <= pair[1], "must be [lowest, highest]"),
    (("patches.library_pitches",), lambda p: len(set(p)) == len(p), "names a pitch twice"),
    (
        ("library.preview_pitch", "patches.library_pitches"),
        lambda pitch, rendered: pitch in rendered,
        "must be one of patches.library_pitches",
    ),
    (
        ("encoder.stage1", "encoder.stage2"),
        lambda stage1, stage2: (stage1 == "timbre") == (stage2 == "timbre"),
        "must be timbre where encoder.stage2 is, and a published network where that is one",
    ),
    (("vae.frames",), lambda frames: frames <= 300, "a note has 300 frames"),
    (("generator.frames",), lambda frames: frames <= 300, "a note has 300 frames"),
    (
        ("generator.width", "generator.heads"),
        lambda width, heads: width % heads == 0,
        "must be a multiple of generator.heads",
    ),
    (
        ("generator.frames", "generator.frames_per_token"),
        lambda frames, each: frames % each == 0,
        "must be a multiple of generator.frames_per_token",
    ),
    (
        ("evaluation.recall_min_velocity", "evaluation.recall_max_velocity"),
        lambda low, high: low <= high,
        "must not lie above evaluation.recall_max_velocity",
    ),
    (
        ("promotion.thresholds",),
        lambda thresholds: len({each["name"] for each in thresholds}) == len(thresholds),
        "names a figure twice",
    ),
)
