"""What becomes of it: the library, the index, what is measured, and what is good enough."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from timbrel.params.values import Amount, Midi, Positive, Rate, Section, Share, Velocity


class Library(Section):
    """The two-stage search and the previews."""

    candidates: Positive
    """Renders that stage 1 finds for stage 2 to order."""
    window_semitones: Annotated[int, Field(ge=0)]
    """How far from the query's pitch a render may be; where little is left it opens further."""
    fold_distance: Annotated[float, Field(ge=0, lt=1)]
    """Patches within this stage-2 distance at every pitch that they share are one sound."""
    stage1_share: Share
    """What stage 1 is worth in the order of the hits, of 1 in all."""
    preview_seconds: Annotated[float, Field(gt=0, le=4)]
    """Length of a patch's preview."""
    preview_pitch: Midi
    """MIDI pitch of the preview, one of patches.library_pitches."""


class Index(Section):
    """How the partitions of the index are searched."""

    plan: Literal["auto", "flat", "hnsw", "ivf_flat", "ivf_sq", "ivf_pq", "gpu_cagra", "gpu_ivf_pq"]
    """auto: what fits each partition's size."""
    target_recall: Rate
    """Share of the exact answer's ten best that an approximate plan has to find."""


class PgesamEvaluation(Section):
    """How much is measured of pGESAM's two networks."""

    train_instruments: Positive
    """Training instruments that are judged as the held-out ones are, which are judged all."""
    sampled_notes: Positive
    """Notes written freely for each seed, of training and of held-out instruments."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Seeds over which a spread is told."""
    family_neighbours: Positive
    """Nearest places that are asked which family a note is of."""
    walks: Positive
    """Walks over the map between instruments that lie near each other."""
    walk_steps: Annotated[int, Field(ge=2)]
    """Steps of a walk."""
    walk_seconds: Annotated[float, Field(ge=0.1, le=4)]
    """Length of each note on it."""
    random_notes: Positive
    """Notes at places spread evenly over the map, which are searched for clicks and dropouts."""


class Evaluation(Section):
    """What is measured on the finished bundle."""

    recall_patches: Positive
    """Patches of the library that are played anew and searched."""
    recall_noise_db: Amount
    """Their signal-to-noise ratio, in dB."""
    recall_min_velocity: Velocity
    """Softest of these notes."""
    recall_max_velocity: Velocity
    """Hardest of them."""
    synthesis_pairs: Positive
    """Places and keys at which a note is synthesized, and its pitch measured."""
    synthesis_seconds: Annotated[float, Field(gt=0, le=4)]
    """Length of these notes."""
    seed: Annotated[int, Field(ge=0)]
    """What all of these are drawn from."""


class Threshold(Section):
    """What a bundle may lose of one figure against the champion."""

    name: str
    """The figure, as `timbrel bundle diff` prints it."""
    better: Literal["higher", "lower"]
    """Which way is better."""
    tolerance: Amount
    """How much worse it may be."""


class Promotion(Section):
    """When `timbrel bundle promote` takes a bundle without `--force`. No stage reads it: it changes no build."""

    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1)]
    """What may not become worse: figures, each with the way that is better and a tolerance."""
