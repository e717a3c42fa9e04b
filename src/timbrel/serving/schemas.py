"""What the service may be asked over HTTP: the fields of each request, with their limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from timbrel.engine.arguments import (
    DEFAULT_PAGE,
    DEFAULT_SECONDS,
    DEFAULT_VELOCITY,
    HIGHEST_VELOCITY,
    LONGEST_SECONDS,
    MAX_DEPTH,
    MAX_HITS,
    MAX_PAGE,
    SHORTEST_SECONDS,
)

Gate = Literal["auto", "require", "off"]


def _number_in_text(value: Any) -> Any:
    """Form fields arrive as text; everything else is left to the strict types."""
    if isinstance(value, str):
        text = value.strip()
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return value


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 60.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _truth_in_text(value: Any) -> Any:
    """Form fields arrive as text; JSON's words for truth, and no others."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _one_or_several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[Annotated[str, Field(max_length=200)]], BeforeValidator(_one_or_several)]
Truth = Annotated[bool, BeforeValidator(_truth_in_text)]


class SearchOptions(BaseModel):
    """How to search. Sent as form fields beside the recordings, or in the query string; the form wins."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    like: str | None = Field(
        None,
        max_length=200,
        description="A patch_id, instead of recordings: which other patches sound like this one? The patch itself is "
        "left out. Compared by its render nearest to `pitch`, else to the middle of the pitches it sounds at.",
        json_schema_extra={"example": "dx7-9e2442ba67b3"},
    )
    k: Annotated[int, BeforeValidator(_whole), BeforeValidator(_number_in_text)] = Field(
        10, ge=1, le=MAX_HITS, description="How many hits to return."
    )
    offset: Annotated[int, BeforeValidator(_whole), BeforeValidator(_number_in_text)] = Field(
        0,
        ge=0,
        le=MAX_DEPTH - 1,
        description="How many hits to pass over: pages of the same k follow one another without gap or repetition. "
        f"offset + k is at most {MAX_DEPTH}.",
    )
    gate: Gate = Field(
        "auto",
        description="auto: compare at the measured pitch where there is one; require: refuse the recording unless its "
        "pitch can be measured (422); off: compare at all pitches.",
    )
    pitch: Annotated[float | None, BeforeValidator(_number_in_text)] = Field(
        None,
        ge=0,
        le=127,
        description="MIDI pitch of the recordings, instead of the measured one; the pitch near which to compare "
        "vectors; with `like`, which of the patch's renders to compare by.",
    )
    octaves: Truth = Field(
        False, description="Compare also with renders one or more octaves above and below the pitch."
    )
    family: Names = Field(
        [],
        description="Only patches of this family; repeat the field for several.",
        json_schema_extra={"example": ["brass"]},
    )
    bank: Names = Field(
        [],
        description="Only patches of this bank; repeat the field for several.",
        json_schema_extra={"example": ["timbrel-07.syx"]},
    )
    min_confidence: Annotated[float, BeforeValidator(_number_in_text)] = Field(
        0.0,
        ge=0,
        le=1,
        description="Only renders whose pitch was measured with at least this confidence; above 0, none without "
        "a pitch.",
    )
    fold: Truth = Field(
        True,
        description="Patches that are the same sound are one hit, the others in its `also`; false: each by itself.",
    )


class SearchRequest(SearchOptions):
    """A search without a recording: `like` a patch of the library, or by the vectors of `timbrel embed`."""

    stage1: list[float] | None = Field(
        None,
        description="Stage-1 vector of this bundle's encoder; its length does not matter. Needs stage2 as well.",
    )
    stage2: list[float] | None = Field(None, description="Stage-2 vector of the same sound.")


class LocateOptions(BaseModel):
    """How to locate. Sent as a form field beside the recording, or in the query string; the form wins."""

    model_config = ConfigDict(strict=True, extra="forbid")

    refine: Truth = Field(
        True,
        description="Look around the place for the one whose note sounds most like the recording; "
        "false is faster, and less exact.",
    )


class SynthesizeRequest(BaseModel):
    """A place on the timbre map, a key, a velocity and a length."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        # BentoML's schema class knows "example", not JSON Schema's "examples".
        json_schema_extra={"example": {"x": 0.2, "y": -0.4, "pitch": 60, "velocity": 100, "seconds": 4.0}},
    )

    x: float = Field(description="Place on the map, left to right.")
    y: float = Field(description="Place on the map, bottom to top.")
    pitch: Annotated[int, BeforeValidator(_whole)] = Field(ge=0, le=127, description="MIDI key.")
    velocity: Annotated[int, BeforeValidator(_whole)] = Field(
        DEFAULT_VELOCITY,
        ge=1,
        le=HIGHEST_VELOCITY,
        description="How hard the key is struck: it changes the timbre, and up to 100 the level, by 40 log10(velocity "
        "/ 100) dB, as General MIDI recommends; 100 and above peak at -1 dBFS.",
    )
    seconds: float = Field(
        DEFAULT_SECONDS, ge=SHORTEST_SECONDS, le=LONGEST_SECONDS, description="Length of the note."
    )


class InstrumentRequest(BaseModel):
    """A place on the timbre map, and how long each note is."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"example": {"x": 0.2, "y": -0.4, "seconds": 4.0}},
    )

    x: float = Field(description="Place on the map, left to right.")
    y: float = Field(description="Place on the map, bottom to top.")
    seconds: float = Field(
        DEFAULT_SECONDS, ge=SHORTEST_SECONDS, le=LONGEST_SECONDS, description="Length of each note."
    )


class PatchesQuery(BaseModel):
    """Which part of the library is wanted; sent in the query string."""

    model_config = ConfigDict(strict=True, extra="forbid")

    offset: Annotated[int, BeforeValidator(_number_in_text)] = Field(
        0, ge=0, le=10**9, description="How many patches to pass over."
    )
    limit: Annotated[int, BeforeValidator(_number_in_text)] = Field(
        DEFAULT_PAGE, ge=1, le=MAX_PAGE, description="How many patches to return."
    )
    family: Names = Field([], description="Only patches of this family; repeat it for several.")
    bank: Names = Field([], description="Only patches of this bank; repeat it for several.")


AudioFile = Annotated[Path, Field(description="A recording: WAV, FLAC, OGG, MP3 or AIFF.")]
