"""The bundles that were built, as versions of one registered model, ``timbrel-bundle``: one per content hash.

    <root>/mlflow.db                    the versions: hashes, sizes, revision, figures, settings; aliases
    <root>/mlruns/bundles/<id>/         the bundle of each, whole; files that two have in common are there once
    <root>/live/live.json               what is live (``timbrel.library.champion``)

Aliases: ``candidate`` is what the pipeline built last; ``champion`` and ``previous`` are a record of live.json, which
``follow`` brings up to date, so that whoever is killed between the two is put right by the next command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timbrel.errors import BundleError, ConfigurationError
from timbrel.files import locked
from timbrel.library import champion
from timbrel.library.bundle_copy import copy_whole
from timbrel.library.champion import Change
from timbrel.library.manifest import FILE_NAME as MANIFEST_NAME
from timbrel.library.manifest import Manifest, read_manifest
from timbrel.tracking.checkout import tags as checkout_tags
from timbrel.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MODEL = "timbrel-bundle"
CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
ALIASES = (CHAMPION, CANDIDATE, PREVIOUS)
LEAST_DIGITS = 6  # of an id that names a version
_ID, _FIGURES, _SETTINGS, _DIMENSIONS = (
    "timbrel.bundle", "timbrel.figures", "timbrel.settings", "timbrel.dimensions",
)  # fmt: skip
_REVISION, _PIPELINE, _CHANGE = "timbrel.revision", "timbrel.pipeline_run", "timbrel.change."


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a bundle besides its files. ``figures``: by dotted name; ``settings``: flat, empty if they
    are not known; ``run``: the MLflow run that measured it; ``tags``: any others.
    """

    figures: Mapping[str, float]
    settings: Mapping[str, Any]
    run: str | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered bundle. ``registered``: milliseconds since 1970; ``folder``: where it lies, whole."""

    number: int
    bundle: str
    folder: Path
    figures: Mapping[str, float]
    settings: Mapping[str, Any]
    aliases: tuple[str, ...]
    revision: str
    registered: int
    changes: tuple[Change, ...]

    @property
    def title(self) -> str:
        """As people name it: ``version 3 (cc0fd84871b4)``."""
        return f"version {self.number} ({self.bundle[:12]})"


class Registry:
    """Of the checkout at ``root``. Whatever changes it holds a lock: two processes do so one after the other."""

    def __init__(self, client: MlflowClient) -> None:
        """Use ``Registry.open``."""
        self._client = client
        # Beside the database, wherever the store of the checkout is.
        store = Path(client.tracking_uri.removeprefix("sqlite:///")).parent
        self._bundles = store / "mlruns" / "bundles"

    @classmethod
    def open(cls, root: Path) -> Registry:
        """Open the store, and make the registered model if it is not there.

        Raises ConfigurationError where MLflow is not installed.
        """
        try:
            client, _ = open_store(root)
        except ImportError:
            raise ConfigurationError(
                "MLflow is not installed here: `scripts/setup serve pipeline` installs it"
            ) from None
        registry = cls(client)
        with registry._changing():
            registry._ensure_model()
        return registry

    def register(self, folder: Path, known: Known, *, candidate: bool = True) -> tuple[Version, bool]:
        """Keep the bundle in ``folder``; returns its version, and whether it is a new one.

        One that is registered already stays as it is, but for figures that were measured anew. It is the ``candidate``
        from now on, unless it is the champion.

        Raises BundleError: it is not whole, or there is no room.
        """
        manifest = read_manifest(folder / MANIFEST_NAME)
        with self._changing():
            version = self._version_of(manifest.id)
            fresh = version is None
            kept = self._bundles / manifest.id
            if not (kept / MANIFEST_NAME).is_file():
                copy_whole(folder, kept, known=self._kept_files())
            if version is None:
                made = self._client.create_model_version(
                    MODEL,
                    kept.as_uri(),
                    known.run,
                    tags=_tags(manifest, known) | self._pipeline(known.run),
                    description=f"bundle {manifest.id[:12]}: {manifest.library.patch_count} patches",
                    await_creation_for=0,
                )
                version = self._read(made, {})
            else:
                self._add(version, known)
            if candidate and CHAMPION not in version.aliases and CANDIDATE not in version.aliases:
                self._client.set_registered_model_alias(MODEL, CANDIDATE, str(version.number))
        return self._found(manifest.id), fresh

    def versions(self) -> list[Version]:
        """All of them, the newest first."""
        # Searching leaves aliases out.
        aliases = self._aliases()
        found = self._client.search_model_versions(f"name='{MODEL}'", max_results=10_000)
        return sorted((self._read(each, aliases) for each in found), key=lambda version: -version.number)

    def find(self, name: str) -> Version:
        """By number, alias, or the beginning of the bundle's id. Raises BundleError if none or several are meant."""
        versions = self.versions()
        meant = [version for version in versions if name in (str(version.number), *version.aliases)]
        if not meant and len(name) >= LEAST_DIGITS:
            meant = [version for version in versions if version.bundle.startswith(name.lower())]
        if len(meant) == 1:
            return meant[0]
        several = f"{len(meant)} versions begin with {name!r}" if meant else f"no version is called {name!r}"
        raise BundleError(f"{several}: take a number, an alias or an id from `timbrel bundle list`")

    def follow(self, folder: Path) -> None:
        """Bring aliases and the record of changes up to date with what is live, as ``folder`` says.

        A champion that this store does not know (its file was lost) is registered again. Raises BundleError.
        """
        live = champion.read(folder)
        for bundle in (live.champion, live.previous) if live else ():
            if live and bundle and self._version_of(bundle) is None and (folder / bundle).is_dir():
                known = [c.figures for c in live.changes if c.bundle == bundle and c.figures]
                self.register(
                    folder / bundle, Known(figures=known[-1] if known else {}, settings={}), candidate=False
                )
        with self._changing():
            # Read again: of two who follow at once, the later one has what is live now.
            live = champion.read(folder)
            versions = {version.bundle: version for version in self.versions()}
            aliases = self._aliases()
            wanted = {CHAMPION: live.champion if live else None, PREVIOUS: live.previous if live else None}
            for alias, bundle in wanted.items():
                version = versions.get(bundle or "")
                if version is not None:
                    self._point(aliases, alias, version.number)
                elif alias in aliases:
                    self._client.delete_registered_model_alias(MODEL, alias)
            if CANDIDATE in aliases and aliases[CANDIDATE] == aliases.get(CHAMPION):
                self._client.delete_registered_model_alias(MODEL, CANDIDATE)
            for change in live.changes if live else ():
                changed = versions.get(change.bundle)
                if changed is not None and change not in changed.changes:
                    key, value = f"{_CHANGE}{change.number:04}", change.model_dump_json()
                    self._client.set_model_version_tag(MODEL, str(changed.number), key, value)

    def _point(self, aliases: dict[str, int], alias: str, number: int) -> None:
        if aliases.get(alias) != number:
            self._client.set_registered_model_alias(MODEL, alias, str(number))
            aliases[alias] = number

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(MODEL)
        except MlflowException:
            self._client.create_registered_model(
                MODEL, description="What Timbrel serves: one version per bundle"
            )

    def _aliases(self) -> dict[str, int]:
        aliases = self._client.get_registered_model(MODEL).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def _version_of(self, bundle: str) -> Version | None:
        found = self._client.search_model_versions(f"name='{MODEL}' and tag.`{_ID}` = '{bundle}'")
        return self._read(found[0], self._aliases()) if found else None

    def _found(self, bundle: str) -> Version:
        version = self._version_of(bundle)
        assert version is not None, bundle
        return version

    def _read(self, found: ModelVersion, aliases: Mapping[str, int]) -> Version:
        tags = found.tags
        changes = sorted(name for name in tags if name.startswith(_CHANGE))
        return Version(
            number=int(found.version),
            bundle=tags[_ID],
            folder=self._bundles / tags[_ID],
            figures=json.loads(tags.get(_FIGURES, "{}")),
            settings=json.loads(tags.get(_SETTINGS, "{}")),
            aliases=tuple(alias for alias in ALIASES if aliases.get(alias) == int(found.version)),
            revision=tags.get(_REVISION, ""),
            registered=int(found.creation_timestamp),
            changes=tuple(Change.model_validate_json(tags[name]) for name in changes),
        )

    def _add(self, version: Version, known: Known) -> None:
        for key, had, new in (
            (_FIGURES, version.figures, known.figures),
            (_SETTINGS, version.settings, known.settings),
        ):
            if dict(new) and dict(had) != dict(new):
                self._client.set_model_version_tag(MODEL, str(version.number), key, _json(new))

    def _pipeline(self, run: str | None) -> dict[str, str]:
        """The run of the pipeline that the run which measured the bundle was a part of."""
        parent = self._client.get_run(run).data.tags.get("mlflow.parentRunId") if run else None
        return {_PIPELINE: parent} if parent else {}

    def _kept_files(self) -> dict[str, Path]:
        """The files of all registered bundles by their SHA-256."""
        return {
            entry.sha256: manifest.parent / name
            for manifest in self._bundles.glob(f"[!.]*/{MANIFEST_NAME}")
            for name, entry in read_manifest(manifest).files.items()
        }

    def _changing(self) -> Any:
        self._bundles.mkdir(parents=True, exist_ok=True)
        return locked(self._bundles / ".lock")


def known_tags(root: Path) -> dict[str, str]:
    """What a version says of the checkout at ``root`` it was registered from."""
    found = checkout_tags(root)
    return {name: value for name, value in found.items() if name.startswith("timbrel.")}


def _tags(manifest: Manifest, known: Known) -> dict[str, str]:
    models = manifest.models
    encoder = models["timbre_encoder"].outputs
    dimensions = {
        "stage1": encoder["stage1"].shape[-1],
        "stage2": encoder["stage2"].shape[-1],
        "patches": manifest.library.patch_count,
        "renders": manifest.library.render_count,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
    }
    return {
        **(known.tags or {}),
        _ID: manifest.id,
        _REVISION: manifest.provenance.git_revision,
        "timbrel.params_sha256": manifest.provenance.params_sha256,
        _DIMENSIONS: _json(dimensions),
        _FIGURES: _json(known.figures),
        _SETTINGS: _json(known.settings),
    }


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)
