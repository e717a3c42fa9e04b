"""The bundle: every file of it guarded, equal parts giving an equal bundle, and nothing half-replaced."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import KEYS, bundle_parts, tiny_bundle_folder

from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError, DataError, NotFound
from timbrel.files import sha256_of
from timbrel.library import manifest as manifests
from timbrel.library.build import build_library
from timbrel.library.bundle import Bundle
from timbrel.library.describe import describe_model
from timbrel.library.manifest import FileEntry, Provenance, Tensor
from timbrel.notes import dx7

FILES = (
    "models/timbre_encoder.onnx", "models/codec_encoder.onnx", "models/codec_decoder.onnx",
    "models/map_encoder.onnx", "models/generator.onnx", "library/patches.csv", "library/renders.csv",
    "library/stage2.npy", "library/folds.npy", "library/previews.zip", "index/index.json",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_folder(), tmp_path / "bundle"))


def parts() -> dict[str, Any]:
    return bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))


def test_the_manifest_names_every_file_with_its_hash_and_size(folder: Path) -> None:
    bundle = Bundle.open(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "manifest.json"
    }
    assert set(bundle.manifest.files) == found
    assert set(FILES) < found
    assert len(found) == len(FILES) + 1
    for name, entry in bundle.manifest.files.items():
        assert (sha256_of(folder / name), (folder / name).stat().st_size) == (entry.sha256, entry.bytes)


def test_what_an_opened_bundle_holds(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert (len(bundle.patches), len(bundle.renders), len(bundle.index)) == (14, 70, 70)
    assert bundle.stage2.shape == (70, 96)
    assert bundle.stage2.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(bundle.stage2.astype(np.float32), axis=1), 1, atol=1e-3)
    assert bundle.manifest.models["generator"].inputs == {
        "position": Tensor(dtype="float32", shape=("batch", 2)),
        "pitch": Tensor(dtype="int64", shape=("batch",)),
        "velocity": Tensor(dtype="float32", shape=("batch",)),
        "frames": Tensor(dtype="int64", shape=(1,)),
    }
    assert (bundle.manifest.map.velocity_low, bundle.manifest.map.velocity_high) == (40, 127)
    assert bundle.path("generator") == folder / "models/generator.onnx"
    assert bundle.path("library/stage2.npy") == folder / "library/stage2.npy"
    with pytest.raises(BundleError, match="no model and no file 'nonsense'"):
        bundle.path("nonsense")
    furthest = np.hypot(*bundle.positions.T).max()
    assert bundle.manifest.map.radius >= furthest
    assert bundle.manifest.map.radius <= max(1.0, furthest + 0.01)
    assert len(bundle.id) == 64


def test_renders_are_filed_under_what_sounds(folder: Path) -> None:
    bundle = Bundle.open(folder)
    octave = next(patch for patch in bundle.patches if patch.name == "Octave Up")
    rows = [render.row for render in bundle.renders if render.patch_id == octave.patch_id]
    for row, key in zip(rows, KEYS, strict=True):
        assert bundle.renders[row].key == key
        assert row in bundle.index.ids_within(key + 12, 0)
        assert row not in bundle.index.ids_within(key, 0)
    hiss = next(patch for patch in bundle.patches if patch.name == "Hiss")
    unpitched = {render.row for render in bundle.renders if render.patch_id == hiss.patch_id}
    assert unpitched.isdisjoint(bundle.index.ids_within(60, 127).tolist())
    assert unpitched <= set(bundle.index.ids_within(None, 0).tolist())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty"])
def test_damage_to_any_file_is_noticed(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(BundleError, match=f"{Path(name).name} (is missing|does not match its hash)"):
        Bundle.open(folder)


def test_damage_to_the_index_data_is_noticed(folder: Path) -> None:
    data = next((folder / "index").glob("vectors-*.bin"))
    data.write_bytes(data.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match="does not match its hash"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("models", "generator", "licence"), "other", "contents that its id promises"),
        (("search", "candidates"), 1, "contents that its id promises"),
        (("id",), "0" * 64, "contents that its id promises"),
        (("format",), 2, "format 2"),
        (("map",), {}, "not a bundle manifest"),
        (("models", "generator", "file"), "models/other.onnx", "not among its files"),
        (("files", "../escape"), {"sha256": "0", "bytes": 0}, "no path inside the bundle"),
        (("files", "/etc/hostname"), {"sha256": "0", "bytes": 0}, "no path inside the bundle"),
    ],
)
def test_a_changed_manifest_is_refused(
    folder: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"{}"])
def test_a_foreign_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(folder)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing; run `dvc repro`"):
        Bundle.open(tmp_path)


def test_equal_parts_give_equal_bundles_whatever_made_them(tmp_path: Path) -> None:
    given = parts()
    first = Bundle.build(tmp_path / "one", **given)
    second = Bundle.build(tmp_path / "two", **given)
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()
    other = Provenance(git_revision="1" * 40, params_sha256="2" * 64)
    third = Bundle.build(tmp_path / "three", **given | {"provenance": other})
    assert first.id == second.id == third.id == Bundle.open(tiny_bundle_folder()).id
    assert third.manifest.provenance == other
    search = replace(given["search"], candidates=200)
    assert Bundle.build(tmp_path / "four", **given | {"search": search}).id != first.id


def test_the_library_is_built_alike_twice(tmp_path: Path) -> None:
    source = tiny_bundle_folder().with_name("bundle.parts")
    paths = {path.stem: path for path in (source / "models").glob("*.onnx")}
    models = OnnxModels(paths)
    steps: list[tuple[int, int]] = []
    figures = build_library(
        source / "patches",
        tmp_path / "library",
        models.run,
        MagnitudeCodecRuntime(models),
        encoder=sha256_of(paths["timbre_encoder"]),
        preview_seconds=0.5,
        preview_pitch=60,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert (figures.patches, figures.renders, figures.unpitched_renders, figures.off_map) == (14, 70, 5, 1)
    assert steps == [(32, 70), (64, 70), (70, 70)]
    for path in sorted((source / "library").iterdir()):
        assert path.read_bytes() == (tmp_path / "library" / path.name).read_bytes(), path.name


def test_a_folder_that_is_no_library_is_refused(tmp_path: Path) -> None:
    source = tiny_bundle_folder().with_name("bundle.parts")
    shutil.copytree(source / "patches", tmp_path / "patches")
    table = tmp_path / "patches/patches.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    arguments: dict[str, Any] = {"encoder": "e", "preview_seconds": 1.0, "preview_pitch": 60}
    models = OnnxModels({})
    codec = MagnitudeCodecRuntime(models)
    with pytest.raises(DataError, match="lacks 1 patches, sf2-"):
        build_library(tmp_path / "patches", tmp_path / "out", models.run, codec, **arguments)
    table.unlink()
    with pytest.raises(DataError, match=r"patches\.csv cannot be read"):
        build_library(tmp_path / "patches", tmp_path / "out", models.run, codec, **arguments)


def test_a_map_that_is_not_flat_is_refused(tmp_path: Path) -> None:
    given = parts()
    source = given["models"]["generator"]
    inputs = {**source.entry.inputs, "position": Tensor(dtype="float32", shape=("batch", 3))}
    given["models"]["generator"] = replace(source, entry=replace(source.entry, inputs=inputs))
    with pytest.raises(BundleError, match=r"generator has 3 dimensions.*set vae\.map_dimensions to 2"):
        Bundle.build(tmp_path / "bundle", **given)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_is_too_big_or_incomplete_is_not_built(tmp_path: Path) -> None:
    given = parts()
    with pytest.raises(
        BundleError, match=r"would weigh 1\.\d MiB, more than the allowed 1 MiB; make .* smaller"
    ):
        Bundle.build(tmp_path / "bundle", **given, max_bytes=2**20)
    shutil.copytree(given["library"], tmp_path / "library")
    (tmp_path / "library/previews.zip").unlink()
    with pytest.raises(BundleError, match=r"previews\.zip is missing"):
        Bundle.build(tmp_path / "bundle", **given | {"library": tmp_path / "library"})
    models = {name: source for name, source in given["models"].items() if name != "generator"}
    with pytest.raises(BundleError, match="lacks the models generator"):
        Bundle.build(tmp_path / "bundle", **given | {"models": models})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library"]


def test_parts_that_do_not_belong_together_are_not_built(tmp_path: Path) -> None:
    given = parts()
    library = Path(shutil.copytree(given["library"], tmp_path / "library"))
    stage2 = np.load(library / "stage2.npy")
    np.save(library / "stage2.npy", stage2[:-1])
    with pytest.raises(BundleError, match="69 stage-2 vectors where its manifest says 70"):
        Bundle.build(tmp_path / "bundle", **given | {"library": library})
    np.save(library / "stage2.npy", stage2[:, :-1])
    with pytest.raises(BundleError, match="do not fit the library's vectors"):
        Bundle.build(tmp_path / "bundle", **given | {"library": library})
    np.save(library / "stage2.npy", stage2 * np.float16(np.nan))
    with pytest.raises(BundleError, match="not finite float16"):
        Bundle.build(tmp_path / "bundle", **given | {"library": library})
    shutil.copy(given["library"] / "stage2.npy", library)
    with zipfile.ZipFile(library / "previews.zip", "w") as archive:
        archive.writestr("dx7-other.mp3", b"")
    with pytest.raises(BundleError, match="previews are not those of the patches"):
        Bundle.build(tmp_path / "bundle", **given | {"library": library})


def test_a_bundle_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    given = parts()
    first = Bundle.build(tmp_path / "bundle", **given)
    with pytest.raises(BundleError, match="would weigh"):
        Bundle.build(tmp_path / "bundle", **given, max_bytes=1)
    assert Bundle.open(tmp_path / "bundle").id == first.id
    search = replace(given["search"], candidates=150)
    second = Bundle.build(tmp_path / "bundle", **given | {"search": search})
    assert Bundle.open(tmp_path / "bundle").id == second.id != first.id
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_dx7_patch_is_a_single_voice_dump(folder: Path) -> None:
    bundle = Bundle.open(folder)
    patch = bundle.patches[0]
    file = bundle.patch_file(patch.patch_id)
    assert file.filename == f"tone-1-{patch.patch_id}.syx"
    assert file.media_type == "application/octet-stream"
    assert file.data[:6] == bytes((0xF0, 0x43, 0x00, 0x00, 0x01, 0x1B))
    assert len(file.data) == 163
    (voice,) = dx7.read_sysex(file.data).voices
    assert (voice.name.strip(), voice.algorithm, voice.operators[0].output) == ("Tone 1", 1, 90)


def test_a_soundfont_patch_is_the_name_of_its_preset(folder: Path) -> None:
    bundle = Bundle.open(folder)
    patch = next(patch for patch in bundle.patches if patch.engine == "soundfont")
    file = bundle.patch_file(patch.patch_id)
    assert (file.filename, file.media_type) == (f"hiss-{patch.patch_id}.json", "application/json")
    assert json.loads(file.data) == {
        "name": "Hiss", "soundfont": "tiny.sf2", "sha256": "0" * 64, "bank": 0, "program": 122
    }  # fmt: skip


def test_every_patch_has_its_preview_and_its_file(folder: Path) -> None:
    bundle = Bundle.open(folder)
    for patch in bundle.patches:
        assert 1_000 < len(bundle.preview(patch.patch_id)) < 20_000
        assert bundle.patch_file(patch.patch_id).data
    for ask in (bundle.patch, bundle.preview, bundle.patch_file):
        with pytest.raises(NotFound, match="no patch 'dx7-nothing'"):
            ask("dx7-nothing")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generator.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"generator\.onnx is no usable model"):
        describe_model(tmp_path / "generator.onnx", source="", licence="")


def test_the_id_covers_all_but_itself_and_its_provenance(folder: Path) -> None:
    manifest = manifests.read_manifest(folder / "manifest.json")
    assert replace(manifest, id="x").content_id() == manifest.id
    assert replace(manifest, data=()).content_id() != manifest.id
    assert replace(manifest, map=replace(manifest.map, radius=2.0)).content_id() != manifest.id


def _older(folder: Path) -> None:
    """Make the bundle one of before there were folds."""
    content = json.loads((folder / "manifest.json").read_text())
    del content["library"]["folds"], content["files"]["library/folds.npy"], content["search"]["fold_distance"]
    (folder / "library/folds.npy").unlink()
    described = {name: value for name, value in content.items() if name not in ("id", "provenance")}
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["id"] = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_bundle_of_before_there_were_folds_is_folded_when_it_is_opened(folder: Path) -> None:
    _older(folder)
    bundle = Bundle.open(folder)
    assert (bundle.manifest.library.folds, bundle.manifest.search.fold_distance) == (None, 0.02)
    assert bundle.leader_of.tolist() == [0, 0, 0, 3, 3, 5, 6, 6, 8, 9, 9, 11, 5, 13]


def test_folds_are_kept_with_the_bundle(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.manifest.library.folds == "library/folds.npy"
    assert bundle.manifest.search.fold_distance == 0.0047
    folds = np.load(folder / "library/folds.npy", allow_pickle=False)
    assert folds.tolist() == bundle.leader_of.tolist() == [0, 1, 1, *range(3, 14)]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (np.arange(13, dtype=np.int32), r"folds are not int32 \[patches\]"),
        (np.arange(14, dtype=np.int64), "folds are not int32"),
        (np.full(14, 14, dtype=np.int32), "folds are not int32"),
        (np.array([0, 0, 1, *range(3, 14)], dtype=np.int32), "a leader that follows another"),
    ],
)
def test_folds_that_do_not_fit_are_refused(folder: Path, folds: np.ndarray, message: str) -> None:
    bundle = Bundle.open(folder)
    path = folder / "library/folds.npy"
    np.save(path, folds)
    entry = FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)
    files = dict(bundle.manifest.files) | {"library/folds.npy": entry}
    manifest = replace(bundle.manifest, files=files)
    (folder / "manifest.json").write_bytes(replace(manifest, id=manifest.content_id()).to_json())
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


def test_the_rows_of_a_patch(folder: Path) -> None:
    bundle = Bundle.open(folder)
    for patch in bundle.patches:
        rows = [render.row for render in bundle.renders if render.patch_id == patch.patch_id]
        assert bundle.rows_of(patch.patch_id).tolist() == rows
    with pytest.raises(NotFound):
        bundle.rows_of("dx7-0")
