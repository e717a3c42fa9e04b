"""The library to look through, and what a service over it can do: no model is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from timbrel.audio import Limits
from timbrel.engine.arguments import DEFAULT_PAGE, MAX_PAGE, whole
from timbrel.engine.results import MapLimits, PatchInfo, PatchPage, ServerInfo
from timbrel.library.bundle import Bundle
from timbrel.library.filters import Names
from timbrel.library.tables import Patch

_FARTHEST = 10**9


def page(
    bundle: Bundle,
    *,
    offset: int = 0,
    limit: int = DEFAULT_PAGE,
    families: Sequence[str] = (),
    banks: Sequence[str] = (),
) -> PatchPage:
    """``limit`` (1-1,000) patches in the library's own order after the first ``offset``, of these families and banks
    where any are named.

    Raises InputError for a number out of range, and a family or a bank that the library does not have.
    """
    offset = whole("offset", offset, 0, _FARTHEST)
    limit = whole("limit", limit, 1, MAX_PAGE)
    passing = np.ones(len(bundle.patches), dtype=bool)
    if families:
        passing &= Names("family", [patch.family for patch in bundle.patches]).among(families)
    if banks:
        passing &= Names("bank", [patch.bank for patch in bundle.patches]).among(banks)
    numbers = np.flatnonzero(passing)
    chosen = numbers[offset : offset + limit].tolist()
    return PatchPage(
        patches=tuple(_described(bundle, bundle.patches[number]) for number in chosen),
        total=len(numbers),
        offset=offset,
    )


def patch(bundle: Bundle, patch_id: str) -> PatchInfo:
    """What is known of one patch. Raises NotFound."""
    return _described(bundle, bundle.patch(patch_id))


def info(bundle: Bundle, limits: Limits) -> ServerInfo:
    """What is served, and within which limits; recordings are read within ``limits``."""
    known = bundle.manifest.map
    return ServerInfo(
        version=_version(),
        bundle_id=bundle.id,
        bundle_revision=bundle.manifest.provenance.git_revision,
        patches=len(bundle.patches),
        renders=len(bundle.renders),
        families=tuple(sorted({each.family for each in bundle.patches})),
        banks=tuple(sorted({each.bank for each in bundle.patches})),
        map=MapLimits(
            radius=known.radius,
            pitch_low=known.pitch_low,
            pitch_high=known.pitch_high,
            velocity_low=known.velocity_low,
            velocity_high=known.velocity_high,
        ),
        stage1_dimension=bundle.index.dimension,
        stage2_dimension=int(bundle.stage2.shape[1]),
        max_upload_bytes=limits.max_bytes,
        max_seconds=limits.max_seconds,
    )


def _described(bundle: Bundle, patch: Patch) -> PatchInfo:
    sounding = (bundle.renders[row].f0_midi for row in bundle.rows_of(patch.patch_id))
    return PatchInfo(
        patch_id=patch.patch_id,
        name=patch.name,
        family=patch.family,
        bank=patch.bank,
        engine=patch.engine,
        x=patch.x,
        y=patch.y,
        pitches=tuple(sorted(round(pitch, 2) for pitch in sounding if not math.isnan(pitch))),
    )


def _version() -> str:
    try:
        return version("timbrel")
    except PackageNotFoundError:  # run from the sources
        return "0"
