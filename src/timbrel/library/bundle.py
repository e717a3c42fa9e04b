"""The bundle: one immutable folder that crosses from building to serving.

    manifest.json                       what is here, with SHA-256, source and licence of each
    models/<name>.onnx
    index/index.json, vectors-….bin     stage 1, by sounding pitch
    index/scales.npy                    float32 [renders]: what distances are divided by; may be absent
    index/whitening.npy                 float16 [d2, d2]: how stage 2 is compared; may be absent
    library/patches.csv, renders.csv    tables; the patches' places on the map
    library/stage2.npy                  float16 [renders, d2]
    library/folds.npy                   int32 [patches]: the leader of each patch's near-duplicates
    library/previews.zip                one MP3 per patch
    MODEL_CARD.md                       data, sizes, figures, limits, licences: for people

``Bundle.open`` hashes every file before anything is read from it. Nothing is ever unpickled.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from timbrel.errors import BundleError, NotFound
from timbrel.files import atomic_write, put_folder, sha256_of
from timbrel.library import folding, hubness
from timbrel.library import manifest as manifests
from timbrel.library.index import PitchIndex
from timbrel.library.manifest import DataSource, Manifest, ModelEntry, Provenance, SearchEntry
from timbrel.library.patch_files import PatchFile, patch_file
from timbrel.library.previews import Previews
from timbrel.library.styles import Styles, load_whitening
from timbrel.library.tables import Patch, Render, read_patches, read_renders

MAX_BYTES = 64 * 2**20
MAP_AXES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model to be put into a bundle: the ONNX file, and its manifest entry (whose ``file`` is set at
    build).
    """

    path: Path
    entry: ModelEntry


class Bundle:
    """An opened, checked bundle with its tables and index in memory. Read-only and thread-safe."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Use ``Bundle.open``: it checks the files first."""
        self.folder = folder
        self.manifest = manifest
        library = manifest.library
        self.patches: tuple[Patch, ...] = read_patches(folder / library.patches)
        self.renders: tuple[Render, ...] = read_renders(folder / library.renders, self.patches)
        self._number = {patch.patch_id: number for number, patch in enumerate(self.patches)}
        # Number of each render's patch: int [renders].
        self.patch_of = np.array([self._number[render.patch_id] for render in self.renders])
        # Places of the patches on the map: float64 [patches, 2].
        self.positions = np.array([(patch.x, patch.y) for patch in self.patches])
        self.stage2: np.ndarray = np.load(folder / library.stage2, allow_pickle=False)
        encoder = manifest.files[manifest.models["timbre_encoder"].file].sha256
        self.index = PitchIndex.load(folder / library.index, encoder=encoder)
        # float32 [renders], or None: see ``hubness``.
        self.scales = hubness.load_scales(folder / library.index, len(self.renders))
        self._previews = Previews(folder / library.previews)
        self._check()
        # The stage-2 vectors as a search compares them.
        self.styles = Styles(self.stage2, load_whitening(folder / library.index))
        # Number of each patch's leader among its near-duplicates, mostly itself: int32 [patches].
        self.leader_of = self._leaders()
        order = np.argsort(self.patch_of, kind="stable")
        self._rows = np.split(order, np.cumsum(np.bincount(self.patch_of))[:-1])

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Open a bundle after checking the size and SHA-256 of every file.

        Raises:
            BundleError: a file is missing, torn or changed, or the parts do not belong together.
        """
        folder = Path(folder)
        manifest = manifests.read_manifest(folder / manifests.FILE_NAME)
        for name, entry in manifest.files.items():
            path = folder / name
            if not path.is_file():
                raise BundleError(f"{path} is missing; check out the bundle again")
            if path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
                raise BundleError(
                    f"{path} does not match its hash in the manifest; check out the bundle again"
                )
        return cls(folder, manifest)

    @property
    def id(self) -> str:
        """The content hash that names this bundle, 64 hex digits."""
        return self.manifest.id

    def path(self, name: str) -> Path:
        """The file of a model ("generator"), or a file by its path in the bundle. Raises BundleError."""
        model = self.manifest.models.get(name)
        inside = model.file if model else name
        if inside not in self.manifest.files:
            raise BundleError(f"the bundle has no model and no file {name!r}")
        return self.folder / inside

    def patch(self, patch_id: str) -> Patch:
        """Raises NotFound."""
        try:
            return self.patches[self._number[patch_id]]
        except KeyError:
            raise NotFound(f"there is no patch {patch_id!r}; take a patch_id from a search") from None

    def rows_of(self, patch_id: str) -> np.ndarray:
        """The rows of a patch's renders, int [renders of it], ascending. Raises NotFound."""
        return self._rows[self._number[self.patch(patch_id).patch_id]]

    def patch_file(self, patch_id: str) -> PatchFile:
        """The patch as a file for the instrument that plays it. Raises NotFound."""
        return patch_file(self.patch(patch_id))

    def preview(self, patch_id: str) -> bytes:
        """A few seconds of the patch, MP3 (``previews.MEDIA_TYPE``). Raises NotFound."""
        return self._previews.read(self.patch(patch_id).patch_id)

    def close(self) -> None:
        self._previews.close()

    def _check(self) -> None:
        """That the parts belong together."""
        library = self.manifest.library
        counts = {
            "patches": (len(self.patches), library.patch_count),
            "renders": (len(self.renders), library.render_count),
            "stage-2 vectors": (len(self.stage2), library.render_count),
            "index entries": (len(self.index), library.render_count),
        }
        for what, (found, expected) in counts.items():
            if found != expected:
                raise BundleError(
                    f"the bundle holds {found} {what} where its manifest says {expected}; build it again"
                )
        if self.stage2.ndim != 2 or self.stage2.dtype != np.float16 or not np.isfinite(self.stage2).all():
            raise BundleError(
                "the bundle's stage-2 vectors are not finite float16 [renders, d2]; build it again"
            )
        ids = self.index.ids_within(None, 0)
        if not np.array_equal(ids, np.arange(library.render_count)):
            raise BundleError("the index's ids are not the rows of the render table; build the bundle again")
        outputs = self.manifest.models["timbre_encoder"].outputs
        dimensions = (outputs["stage1"].shape[-1], outputs["stage2"].shape[-1])
        if dimensions != (self.index.dimension, self.stage2.shape[1]):
            raise BundleError(
                f"the encoder's outputs {dimensions} do not fit the library's vectors; build it again"
            )
        if self._previews.patch_ids != self._number.keys():
            raise BundleError("the previews are not those of the patches; build the bundle again")

    def _leaders(self) -> np.ndarray:
        library = self.manifest.library
        if library.folds is None:
            distance = self.manifest.search.fold_distance
            return folding.leaders(
                self.patches, self.renders, patch_of=self.patch_of, index=self.index, stage2=self.stage2,
                distance=distance,
            )  # fmt: skip
        folds: np.ndarray = np.load(self.folder / library.folds, allow_pickle=False)
        numbers = np.arange(len(self.patches))
        if folds.shape != numbers.shape or folds.dtype != np.int32 or not np.isin(folds, numbers).all():
            raise BundleError("the bundle's folds are not int32 [patches]; build it again")
        if not np.array_equal(folds[folds], folds):
            raise BundleError("the bundle's folds name a leader that follows another; build it again")
        return folds

    @classmethod
    def build(
        cls,
        folder: Path,
        *,
        models: Mapping[str, ModelSource],
        library: Path,
        index: Path,
        pitches: range,
        velocities: range,
        search: SearchEntry,
        data: Sequence[DataSource],
        provenance: Provenance,
        documents: Mapping[str, str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Bundle:
        """Lay out, describe, check and open a bundle; a former one at ``folder`` is replaced at the very end.

        Args:
            library: folder with patches.csv, renders.csv, stage2.npy and previews.zip.
            index: folder that ``PitchIndex.save`` wrote.
            pitches, velocities: MIDI ranges that the generator has learnt, for example ``range(48, 73)``.
            documents: texts for people, by file name.

        Raises:
            BundleError: parts are missing, do not belong together, or weigh more than ``max_bytes``; the map is not
                flat; or there is no room for the bundle. What was at ``folder`` is as it was then.
        """
        for name in {"map_encoder", "generator"} & models.keys():
            tensors = {**models[name].entry.outputs, **models[name].entry.inputs}
            axes = tensors["position"].shape[-1]
            if axes != MAP_AXES:
                raise BundleError(
                    f"the map of {name} has {axes} dimensions, a bundle's has {MAP_AXES}: "
                    f"set vae.map_dimensions to {MAP_AXES} and run `dvc repro`"
                )
        folder = Path(folder)
        with _part_beside(folder) as part:
            files = _lay_out(part, models, library, index, documents or {})
            total = sum(entry.bytes for entry in files.values())
            if total > max_bytes:
                largest = max(files, key=lambda name: files[name].bytes)
                raise BundleError(
                    f"the bundle would weigh {total / 2**20:.1f} MiB, more than the allowed "
                    f"{max_bytes / 2**20:.0f} MiB; make {largest} smaller ({files[largest].bytes / 2**20:.1f} MiB)"
                )
            patches = read_patches(part / "library/patches.csv")
            renders = read_renders(part / "library/renders.csv", patches)
            manifest = Manifest(
                format=manifests.FORMAT,
                id="",
                files=files,
                models={
                    name: replace(source.entry, file=_model_file(name))
                    for name, source in sorted(models.items())
                },
                library=manifests.LibraryEntry(
                    patches="library/patches.csv",
                    renders="library/renders.csv",
                    stage2="library/stage2.npy",
                    previews="library/previews.zip",
                    index="index",
                    patch_count=len(patches),
                    render_count=len(renders),
                ),
                map=manifests.MapEntry(
                    radius=_radius(patches),
                    pitch_low=pitches.start,
                    pitch_high=pitches.stop - 1,
                    velocity_low=velocities.start,
                    velocity_high=velocities.stop - 1,
                ),
                search=search,
                data=tuple(data),
                provenance=provenance,
            )
            _write_manifest(part, manifest)
            opened = cls.open(part)
            _write_manifest(part, _with_folds(part, manifest, opened.leader_of))
            opened.close()
            put_folder(part, folder)
        return cls.open(folder)


@contextmanager
def _part_beside(folder: Path) -> Iterator[Path]:
    """A new folder's path on the disk of ``folder``; what is there at the end is removed. OSError is a BundleError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            yield Path(temporary) / "bundle"
    except OSError as error:
        raise BundleError(
            f"the bundle cannot be written to {folder} ({error.strerror or error}): make room there, then build it "
            "again; what was there is as it was"
        ) from error


def _lay_out(
    part: Path, models: Mapping[str, ModelSource], library: Path, index: Path, documents: Mapping[str, str]
) -> dict[str, manifests.FileEntry]:
    """Copy every file to its place and describe it, by its path in the bundle, in alphabetical order."""
    sources = {_model_file(name): source.path for name, source in models.items()}
    for name in ("patches.csv", "renders.csv", "stage2.npy", "previews.zip"):
        sources[f"library/{name}"] = library / name
    sources |= {f"index/{path.name}": path for path in index.glob("*") if not path.name.startswith(".")}
    for name, source in sorted(sources.items()):
        if not source.is_file():
            raise BundleError(f"{source} is missing; run the stages before this one with `dvc repro`")
        target = part / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for name, text in documents.items():
        (part / name).write_text(text, encoding="utf-8")
    return {
        name: manifests.FileEntry(sha256=sha256_of(part / name), bytes=(part / name).stat().st_size)
        for name in sorted([*sources, *documents])
    }


def _write_manifest(part: Path, manifest: Manifest) -> None:
    with atomic_write(part / manifests.FILE_NAME) as handle:
        handle.write(replace(manifest, id=manifest.content_id()).to_json())


def _with_folds(part: Path, manifest: Manifest, leader_of: np.ndarray) -> Manifest:
    """Keep the groups of near-duplicates, worked out once, with the bundle in ``part``."""
    name = "library/folds.npy"
    np.save(part / name, leader_of, allow_pickle=False)
    entry = manifests.FileEntry(sha256=sha256_of(part / name), bytes=(part / name).stat().st_size)
    files = dict(sorted({**manifest.files, name: entry}.items()))
    return replace(manifest, files=files, library=replace(manifest.library, folds=name))


def _model_file(name: str) -> str:
    return f"models/{name}.onnx"


def _radius(patches: Sequence[Patch]) -> float:
    """The least radius, in steps of 0.01 from 1 on, around every patch: the map's training keeps to the unit
    disc only softly, and each hit's own place has to be playable."""
    furthest = max(math.hypot(patch.x, patch.y) for patch in patches)
    return max(1.0, math.ceil(furthest * 100) / 100)
