"""What the engine answers with."""

from __future__ import annotations

from dataclasses import dataclass

from timbrel.audio import Audio
from timbrel.pitch.gate import GateDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What was asked with. ``f0_hz`` and ``midi`` are None when no pitch was found, or recordings do not agree on
    one; ``confidence`` is 0-1, the least of several recordings.
    """

    f0_hz: float | None
    midi: float | None
    confidence: float
    gate: GateDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One patch, by its best render. ``pitch`` is that render's sounding MIDI pitch, None when it has none.

    Distances of stages are 1 − cosine: 0 equal, 1 unrelated, 2 opposite. ``distance`` is what orders the hits: that of
    both stages, measured by how near the render's own neighbours are (``library.hubness``). Stage 2's is that of
    whitened styles, where the bundle has a whitening (``library.styles``).
    ``x``, ``y``: the patch's place on the timbre map.
    ``also``: patches that are the same sound, of those that the filters leave; see ``library.folding``.
    """

    patch_id: str
    name: str
    family: str
    bank: str
    pitch: float | None
    stage1_distance: float
    stage2_distance: float
    distance: float
    x: float
    y: float
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Hits, nearest first. None when the gate says silent or too short: there was nothing to compare.

    ``total`` hits could be had by paging (up to ``arguments.MAX_DEPTH``); these begin after the first ``offset``.
    """

    query: Query
    hits: tuple[Hit, ...]
    total: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A patch near a place on the map; ``distance`` is measured on the map."""

    patch_id: str
    name: str
    family: str
    bank: str
    x: float
    y: float
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A recording's place on the timbre map, and the patches nearest to it, nearest first."""

    query: Query
    x: float
    y: float
    nearest: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A place on the map as notes to play: (MIDI key, sound), keys rising without a gap."""

    x: float
    y: float
    notes: tuple[tuple[int, Audio], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchInfo:
    """One patch of the library. ``engine`` plays it: "dx7" or "soundfont"; ``x``, ``y``: its place on the map.

    ``pitches``: MIDI, at which the library has a render of it, rising; none for a patch without a pitch.
    """

    patch_id: str
    name: str
    family: str
    bank: str
    engine: str
    x: float
    y: float
    pitches: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPage:
    """A part of the library in its own order: ``total`` patches pass the filters, these come after ``offset``."""

    patches: tuple[PatchInfo, ...]
    total: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLimits:
    """Where the map ends (x² + y² ≤ radius²), and the MIDI keys and velocities that its generator has learnt."""

    radius: float
    pitch_low: int
    pitch_high: int
    velocity_low: int
    velocity_high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What answers: Timbrel's version, the bundle by its content hash, and what may be asked of it.

    ``bundle_revision``: the Git revision that built it. ``stage1_dimension`` and ``stage2_dimension``: sizes of the
    vectors that a search takes. ``max_upload_bytes``: of all recordings of one question; ``max_seconds``: of each.
    """

    version: str
    bundle_id: str
    bundle_revision: str
    patches: int
    renders: int
    families: tuple[str, ...]
    banks: tuple[str, ...]
    map: MapLimits
    stage1_dimension: int
    stage2_dimension: int
    max_upload_bytes: int
    max_seconds: float
