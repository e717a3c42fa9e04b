"""The one list of operations: each call with its arguments checked, and what it is answered with.

Checked here is what does not depend on the bundle, so that every transport refuses the same values in the same
words; the rest (families, the map's limits, the sizes of vectors) the engine checks, wherever it runs. Every call
is a pure read: asking twice does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import ArrayLike

from timbrel.audio import Audio
from timbrel.client.results import InstrumentArchive, PatchFile
from timbrel.engine.arguments import (
    DEFAULT_PAGE,
    DEFAULT_SECONDS,
    DEFAULT_VELOCITY,
    HIGHEST_VELOCITY,
    LONGEST_SECONDS,
    MAX_PAGE,
    SHORTEST_SECONDS,
    number,
    whole,
)
from timbrel.engine.results import Location, PatchInfo, PatchPage, SearchResult, ServerInfo
from timbrel.engine.terms import Terms
from timbrel.errors import InputError
from timbrel.library.filters import Filters
from timbrel.pitch import gate as gates

Result = TypeVar("Result", covariant=True)

_LONGEST_NAME = 200
_MOST_NAMES = 100
# No encoder's vector is nearly as long.
_LONGEST_VECTOR = 8192
_FARTHEST = 10**9


class Call(Generic[Result]):
    """A question to a transport, which answers it with a ``Result`` or raises a TimbrelError."""

    __slots__ = ()


class SearchOptions(TypedDict, total=False):
    """How to search: see ``Client.search``."""

    k: int
    offset: int
    gate: str
    pitch: float | None
    octaves: bool
    families: Sequence[str]
    banks: Sequence[str]
    min_confidence: float
    fold: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search(Call[SearchResult]):
    """By one of ``recordings`` (files), ``like`` (a patch_id) and ``vectors`` (float64 [d1], float64 [d2])."""

    recordings: tuple[bytes, ...] = ()
    like: str | None = None
    vectors: tuple[np.ndarray, np.ndarray] | None = None
    terms: Terms
    gate: gates.Mode
    pitch: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate(Call[Location]):
    recording: bytes
    refine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesize(Call[Audio]):
    x: float
    y: float
    pitch: int
    velocity: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInstrument(Call[InstrumentArchive]):
    x: float
    y: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPatches(Call[PatchPage]):
    families: tuple[str, ...]
    banks: tuple[str, ...]
    offset: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GetPatch(Call[PatchInfo]):
    patch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetPatchFile(Call[PatchFile]):
    patch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetPreview(Call[bytes]):
    """The answer is an MP3 file."""

    patch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetInfo(Call[ServerInfo]):
    pass


def search(recordings: tuple[bytes, ...], **options: Unpack[SearchOptions]) -> Search:
    return Search(recordings=recordings, **_how(**options))


def search_like(patch_id: str, **options: Unpack[SearchOptions]) -> Search:
    return Search(like=_patch_id(patch_id), **_how(**options))


def search_vectors(stage1: ArrayLike, stage2: ArrayLike, **options: Unpack[SearchOptions]) -> Search:
    return Search(vectors=(_vector("stage1", stage1), _vector("stage2", stage2)), **_how(**options))


def _how(
    *,
    k: int = 10,
    offset: int = 0,
    gate: str = gates.Mode.AUTO,
    pitch: float | None = None,
    octaves: bool = False,
    families: Sequence[str] = (),
    banks: Sequence[str] = (),
    min_confidence: float = 0.0,
    fold: bool = True,
) -> dict[str, Any]:
    """What all searches have in common. Raises InputError for a value that no service takes."""
    filters = Filters(
        **_shelves(families, banks),
        min_confidence=number("min_confidence", min_confidence, 0, 1, "a confidence"),
    )
    terms = Terms(
        k=k, offset=offset, octaves=_truth("octaves", octaves), filters=filters, fold=_truth("fold", fold)
    )
    pitch = None if pitch is None else number("pitch", pitch, 0, 127, "a MIDI number")
    return {"terms": terms, "gate": gates.parse(gate), "pitch": pitch}


def locate(*, recording: bytes, refine: bool) -> Locate:
    return Locate(recording=recording, refine=_truth("refine", refine))


def synthesize(
    *, x: float, y: float, pitch: int, velocity: int = DEFAULT_VELOCITY, seconds: float = DEFAULT_SECONDS
) -> Synthesize:
    return Synthesize(
        x=_coordinate("x", x),
        y=_coordinate("y", y),
        pitch=whole("pitch", pitch, 0, 127),
        velocity=whole("velocity", velocity, 1, HIGHEST_VELOCITY),
        seconds=_seconds(seconds),
    )


def export_instrument(*, x: float, y: float, seconds: float = DEFAULT_SECONDS) -> ExportInstrument:
    return ExportInstrument(x=_coordinate("x", x), y=_coordinate("y", y), seconds=_seconds(seconds))


def list_patches(
    *, families: Sequence[str] = (), banks: Sequence[str] = (), offset: int = 0, limit: int = DEFAULT_PAGE
) -> ListPatches:
    return ListPatches(
        **_shelves(families, banks),
        offset=whole("offset", offset, 0, _FARTHEST),
        limit=whole("limit", limit, 1, MAX_PAGE),
    )


def get_patch(patch_id: str) -> GetPatch:
    return GetPatch(patch_id=_patch_id(patch_id))


def get_patch_file(patch_id: str) -> GetPatchFile:
    return GetPatchFile(patch_id=_patch_id(patch_id))


def get_preview(patch_id: str) -> GetPreview:
    return GetPreview(patch_id=_patch_id(patch_id))


def _coordinate(name: str, value: float) -> float:
    # How far the map reaches, the engine knows.
    return number(name, value, -1e6, 1e6, "a coordinate of the map")


def _seconds(value: float) -> float:
    return number("seconds", value, SHORTEST_SECONDS, LONGEST_SECONDS, "a length")


def _truth(name: str, value: bool) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is True or False, not {value!r}")
    return bool(value)


def _text(what: str, value: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} is text, not {value!r}")
    if len(value) > _LONGEST_NAME:
        raise InputError(f"{what} has at most {_LONGEST_NAME} characters, not {len(value)}")
    if not value.isprintable():
        raise InputError(f"{what} holds characters that cannot be printed: {value[:50]!r}")
    return value


def _patch_id(value: str) -> str:
    return _text("a patch_id", value)


def _names(what: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise InputError(f"{what} is a list of names, not {str(values)[:50]!r}")
    return tuple(_text(f"a name in {what}", value) for value in values)


def _shelves(families: Sequence[str], banks: Sequence[str]) -> dict[str, Any]:
    named = {"families": _names("families", families), "banks": _names("banks", banks)}
    if sum(map(len, named.values())) > _MOST_NAMES:
        raise InputError(f"at most {_MOST_NAMES} families and banks can be named: name fewer")
    return named


def _vector(name: str, values: ArrayLike) -> np.ndarray:
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is a vector of numbers: take it from `timbrel embed`") from None
    if vector.ndim != 1:
        raise InputError(f"{name} is one vector [d], not an array {list(vector.shape)}: take one row of it")
    if not 1 <= len(vector) <= _LONGEST_VECTOR:
        raise InputError(
            f"{name} has {len(vector)} numbers, not 1 to {_LONGEST_VECTOR}: take it from `timbrel embed`"
        )
    if not np.isfinite(vector).all():
        raise InputError(f"{name} is no direction: every value must be finite, and one of them other than 0")
    return vector
