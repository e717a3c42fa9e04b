"""What the service answers over HTTP: the fields of each answer, made of the engine's results."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from timbrel.engine.results import (
    Hit,
    Location,
    Neighbour,
    PatchInfo,
    PatchPage,
    Query,
    SearchResult,
    ServerInfo,
)
from timbrel.pitch.gate import Decision


class GateAnswer(BaseModel):
    decision: Decision = Field(
        description="What the F0 gate made of the recording's pitch; mixed: several recordings that do not agree."
    )
    reason: str = Field(description="Why, and what was searched, in one sentence.")
    midi: float | None = Field(description="MIDI pitch that the search is held to; null for all pitches.")
    confidence: float = Field(ge=0, le=1, description="How sure that pitch is.")


class QueryAnswer(BaseModel):
    """What was heard in the recording, or is known of the patch."""

    f0_hz: float | None = Field(
        description="Fundamental frequency; null where none was found. Of several recordings the median, null where "
        "they do not agree."
    )
    midi: float | None = Field(description="The same as a MIDI pitch.")
    confidence: float = Field(ge=0, le=1, description="How sure that is; of several recordings the least.")
    gate: GateAnswer

    @classmethod
    def of(cls, query: Query) -> QueryAnswer:
        gate = GateAnswer(
            decision=query.gate.decision,
            reason=query.gate.reason,
            midi=query.gate.midi,
            confidence=_share(query.gate.confidence),
        )
        return cls(f0_hz=query.f0_hz, midi=query.midi, confidence=_share(query.confidence), gate=gate)


def _share(value: float) -> float:
    """Within 0-1, whatever was rounded on the way."""
    return min(max(value, 0.0), 1.0)


class Links(BaseModel):
    """Where the patch is to be had, relative to the service."""

    patch: str = Field(
        description="The patch file: .syx for a DX7 voice, a preset's description for a soundfont."
    )
    preview: str = Field(description="A few seconds of its sound, MP3.")

    @classmethod
    def of(cls, patch_id: str) -> Links:
        root = f"/patches/{quote(patch_id, safe='')}"
        return cls(patch=f"{root}/file", preview=f"{root}/preview")


class HitAnswer(BaseModel):
    """A patch that sounds like what was asked with. Distances of stages are 1 - cosine: 0 equal, 1 unrelated."""

    patch_id: str
    name: str
    family: str
    bank: str
    pitch: float | None = Field(
        description="MIDI pitch at which the patch was compared; null where it has none."
    )
    stage1_distance: float = Field(description="Distance of the contrastive embeddings.")
    stage2_distance: float = Field(
        description="How unlike the two sounds are: 1 - cosine of their styles, whitened."
    )
    distance: float = Field(
        description="By which hits are ordered: a weighted geometric mean of stage1_distance and stage2_distance, "
        "relative to how near the render's own neighbours are."
    )
    x: float = Field(description="The patch's place on the timbre map.")
    y: float
    also: list[str] = Field(
        description="Patches that are the same sound at every pitch they share, among those that the filters leave: "
        "near-duplicates, folded into this hit."
    )
    links: Links

    @classmethod
    def of(cls, hit: Hit) -> HitAnswer:
        return cls.model_validate(asdict(hit) | {"links": Links.of(hit.patch_id)})


class SearchAnswer(BaseModel):
    """Hits, nearest first; none where the gate found nothing to hear."""

    query: QueryAnswer
    total: int = Field(
        description="How many hits the gate and the filters leave, over all pages; near-duplicates count once."
    )
    offset: int = Field(description="How many of them come before these.")
    hits: list[HitAnswer]

    @classmethod
    def of(cls, result: SearchResult) -> SearchAnswer:
        return cls(
            query=QueryAnswer.of(result.query),
            total=result.total,
            offset=result.offset,
            hits=[HitAnswer.of(hit) for hit in result.hits],
        )


class NeighbourAnswer(BaseModel):
    """A patch near the recording's place; ``distance`` is measured on the map."""

    patch_id: str
    name: str
    family: str
    bank: str
    x: float
    y: float
    distance: float
    links: Links

    @classmethod
    def of(cls, neighbour: Neighbour) -> NeighbourAnswer:
        return cls.model_validate(asdict(neighbour) | {"links": Links.of(neighbour.patch_id)})


class LocateAnswer(BaseModel):
    """The recording's place on the timbre map, and the patches nearest to it."""

    x: float
    y: float
    query: QueryAnswer
    nearest: list[NeighbourAnswer]

    @classmethod
    def of(cls, location: Location) -> LocateAnswer:
        return cls(
            x=location.x,
            y=location.y,
            query=QueryAnswer.of(location.query),
            nearest=[NeighbourAnswer.of(neighbour) for neighbour in location.nearest],
        )


class PatchAnswer(BaseModel):
    """One patch of the library."""

    patch_id: str
    name: str
    family: str
    bank: str
    engine: Literal["dx7", "soundfont"] = Field(description="What plays it.")
    x: float = Field(description="The patch's place on the timbre map.")
    y: float
    pitches: list[float] = Field(description="MIDI pitches at which the library has a render of it.")
    links: Links

    @classmethod
    def of(cls, patch: PatchInfo) -> PatchAnswer:
        return cls.model_validate(asdict(patch) | {"links": Links.of(patch.patch_id)})


class PatchesAnswer(BaseModel):
    """A part of the library, in its own order."""

    total: int = Field(description="How many patches the filters leave, over all pages.")
    offset: int = Field(description="How many of them come before these.")
    patches: list[PatchAnswer]

    @classmethod
    def of(cls, page: PatchPage) -> PatchesAnswer:
        return cls(
            total=page.total, offset=page.offset, patches=[PatchAnswer.of(patch) for patch in page.patches]
        )


class MapAnswer(BaseModel):
    """The timbre map: its places have x² + y² of at most radius²."""

    radius: float
    pitch_low: int = Field(description="The lowest MIDI key that can be played.")
    pitch_high: int = Field(description="The highest MIDI key that can be played.")
    velocity_low: int = Field(description="The softest velocity that the generator has learnt.")
    velocity_high: int = Field(description="The hardest velocity that the generator has learnt.")


class InfoAnswer(BaseModel):
    """What answers, and what may be asked of it."""

    version: str = Field(description="Timbrel's version.")
    bundle_id: str = Field(description="Content hash of the bundle that is served, 64 hex digits.")
    bundle_revision: str = Field(description="Git revision that built it.")
    patches: int
    renders: int
    families: list[str]
    banks: list[str]
    map: MapAnswer
    stage1_dimension: int = Field(description="Numbers in the stage-1 vector that a search takes.")
    stage2_dimension: int = Field(description="Numbers in its stage-2 vector.")
    max_upload_bytes: int = Field(description="Of all recordings of one request.")
    max_seconds: float = Field(description="Longest recording, in seconds.")

    @classmethod
    def of(cls, info: ServerInfo) -> InfoAnswer:
        return cls.model_validate(asdict(info))


class ErrorBody(BaseModel):
    code: str = Field(description="Stable; may be compared.")
    message: str = Field(description="One line that says what to do.")


class ErrorAnswer(BaseModel):
    """Every answer with status 400 or above."""

    error: ErrorBody
