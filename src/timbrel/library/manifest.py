"""The bundle's manifest: what is in the folder, what each model takes and gives, where everything came from.

The bundle's id is the SHA-256 of the manifest's contents without the id itself and without ``provenance``:
the same files described in the same words have the same id, whenever and by whichever revision they were
made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from timbrel.errors import BundleError

FILE_NAME = "manifest.json"
FORMAT = 1
# Of a bundle that does not say: renders of one DX7 voice a velocity step apart are mostly nearer than .01, the
# nearest two of 713 voices that differ further than .03 (benchmarks/folding.py).
FOLD_DISTANCE = 0.02
MODELS = ("timbre_encoder", "codec_encoder", "codec_decoder", "map_encoder", "generator")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file: its SHA-256 (hex) and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output: numpy's name of the type; dimensions, a name where the size is free."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model. ``file`` is its path in the bundle; ``source`` says what made the weights."""

    file: str
    source: str
    licence: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEntry:
    """The library's files, and how much is in them. ``index`` is a folder; older bundles have no ``folds``."""

    patches: str
    renders: str
    stage2: str
    previews: str
    index: str
    patch_count: int
    render_count: int
    folds: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEntry:
    """The timbre map: positions are columns x, y of the patches' table; ``radius`` holds them all, and is at
    least 1. The generator has learnt these pitches and velocities.
    """

    radius: float
    pitch_low: int
    pitch_high: int
    velocity_low: int
    velocity_high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEntry:
    """How this library is meant to be searched: candidates of stage 1, half-width of the pitch gate, the largest
    stage-2 distance between patches that are one sound (see ``folding``), and what stage 1 is worth in the order,
    of 1 in all (see ``two_stage``).
    """

    candidates: int
    window_semitones: int
    fold_distance: float = FOLD_DISTANCE
    stage1_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Something that the models or the library were made from."""

    name: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The Git revision at which the bundle was built, and the SHA-256 of the params file."""

    git_revision: str
    params_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """See the module. ``files`` names every file of the bundle but the manifest."""

    format: int
    id: str
    files: Mapping[str, FileEntry]
    models: Mapping[str, ModelEntry]
    library: LibraryEntry
    map: MapEntry
    search: SearchEntry
    data: tuple[DataSource, ...]
    provenance: Provenance

    def content_id(self) -> str:
        """The id that these contents ask for."""
        return _content_id(asdict(self))

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; every problem is a BundleError that names the field."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; run `dvc repro`, or check out the bundle again") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); check out the bundle again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"{path} has format {found}; this version reads format {FORMAT}: build the bundle again"
        )
    try:
        manifest = _parse(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path} is not a bundle manifest ({error!r}); check out the bundle again"
        ) from error
    # Of the contents as they were written: an older bundle says nothing of fields that it does not have.
    if manifest.id != _content_id(content):
        raise BundleError(
            f"{path} does not have the contents that its id promises; check out the bundle again"
        )
    missing = [name for name in MODELS if name not in manifest.models]
    if missing:
        raise BundleError(f"{path} lacks the models {', '.join(missing)}; build the bundle again")
    return manifest


def _content_id(content: Mapping[str, Any]) -> str:
    described = {name: value for name, value in content.items() if name not in ("id", "provenance")}
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _parse(content: Mapping[str, Any]) -> Manifest:
    models = {
        name: ModelEntry(
            file=entry["file"],
            source=entry["source"],
            licence=entry["licence"],
            inputs=_tensors(entry["inputs"]),
            outputs=_tensors(entry["outputs"]),
        )
        for name, entry in content["models"].items()
    }
    manifest = Manifest(
        format=content["format"],
        id=content["id"],
        files={_inside(name): FileEntry(**entry) for name, entry in content["files"].items()},
        models=models,
        library=LibraryEntry(**content["library"]),
        map=MapEntry(**content["map"]),
        search=SearchEntry(**content["search"]),
        data=tuple(DataSource(**entry) for entry in content["data"]),
        provenance=Provenance(**content["provenance"]),
    )
    library = manifest.library
    named = [entry.file for entry in models.values()]
    named += [library.patches, library.renders, library.stage2, library.previews]
    named += [library.folds] if library.folds is not None else []
    unknown = [name for name in named if name not in manifest.files]
    if unknown:
        raise ValueError(f"{unknown[0]} is not among its files")
    return manifest


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(dtype=entry["dtype"], shape=tuple(entry["shape"])) for name, entry in content.items()
    }


def _inside(name: str) -> str:
    """A path that stays in the bundle."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError(f"{name!r} is no path inside the bundle")
    return name
