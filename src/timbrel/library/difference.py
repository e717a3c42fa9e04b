"""What is different between two bundles: models by hash, the settings they carry, the library's patches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import Manifest, read_manifest
from timbrel.library.tables import Patch, read_patches


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """From one bundle to another. ``models``: names with both hashes, None where there is no such model;
    ``settings``: dotted names with both values; patches by id: ``changed`` names the columns that differ.
    """

    models: dict[str, tuple[str | None, str | None]]
    settings: dict[str, tuple[Any, Any]]
    added: tuple[Patch, ...]
    removed: tuple[Patch, ...]
    changed: dict[str, tuple[str, ...]]


def difference(one: Path, other: Path) -> Difference:
    """Compare the bundles in two folders. Raises BundleError if either cannot be read."""
    manifests = read_manifest(one / MANIFEST_NAME), read_manifest(other / MANIFEST_NAME)
    hashes = [_hashes(manifest) for manifest in manifests]
    settings = [_settings(manifest) for manifest in manifests]
    old, new = (
        {patch.patch_id: patch for patch in read_patches(folder / manifest.library.patches)}
        for folder, manifest in zip((one, other), manifests, strict=True)
    )
    return Difference(
        models=_different(*hashes),
        settings=_different(*settings),
        added=tuple(patch for name, patch in new.items() if name not in old),
        removed=tuple(patch for name, patch in old.items() if name not in new),
        changed={
            name: _columns(old[name], new[name]) for name in new if name in old and old[name] != new[name]
        },
    )


def _different(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted(one.keys() | other.keys())
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _hashes(manifest: Manifest) -> dict[str, Any]:
    return {name: manifest.files[entry.file].sha256 for name, entry in manifest.models.items()}


def _settings(manifest: Manifest) -> dict[str, Any]:
    sections = {"map": asdict(manifest.map), "search": asdict(manifest.search)}
    return {
        f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()
    }


def _columns(old: Patch, new: Patch) -> tuple[str, ...]:
    before, after = asdict(old), asdict(new)
    return tuple(name for name in before if before[name] != after[name])
