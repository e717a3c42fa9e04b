"""Styles as a search compares them: with a whitening, and without."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import bundle_parts, tiny_bundle_folder

from timbrel.engine.asking import Like
from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import BundleError
from timbrel.library.bundle import Bundle
from timbrel.library.styles import Styles, load_whitening, save_whitening, whitened


def symmetric(rng: np.random.Generator, size: int) -> np.ndarray:
    """Symmetric and positive, as ``encoders.within_class`` has them, in half precision."""
    turned = np.linalg.qr(rng.standard_normal((size, size)))[0]
    whole = ((turned * rng.uniform(0.1, 3.0, size)) @ turned.T).astype(np.float16)
    return np.triu(whole) + np.triu(whole, 1).T


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(2, 20))
def test_distances_are_those_of_whitened_vectors(seed: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = whitened(rng.standard_normal((count, size)), None).astype(np.float16)
    query, whitening = whitened(rng.standard_normal((1, size)), None)[0], symmetric(rng, size)
    rows = rng.integers(0, count, 7)

    plain = np.maximum(1.0 - vectors[rows].astype(np.float64) @ query, 0.0)
    np.testing.assert_allclose(Styles(vectors).distances(query, rows), plain, atol=1e-6)

    mine, theirs = query @ whitening.astype(np.float64), vectors.astype(np.float64) @ whitening
    cosines = theirs @ mine / np.linalg.norm(theirs, axis=1) / np.linalg.norm(mine)
    found = Styles(vectors, whitening).distances(query, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.maximum(1.0 - cosines, 0.0)[rows], atol=2e-5)
    np.testing.assert_allclose(
        found, 1.0 - whitened(vectors[rows], whitening) @ whitened(query[None], whitening)[0], atol=2e-5
    )


def test_what_is_nothing_is_near_to_nothing() -> None:
    vectors = np.array([[0.0, 0.0], [1.0, 0.0]], np.float16)
    found = Styles(vectors, np.eye(2, dtype=np.float16)).distances(np.zeros(2, np.float32), [0, 1])
    np.testing.assert_array_equal(found, [1.0, 1.0])
    assert len(Styles(np.empty((0, 2), np.float16), np.eye(2, dtype=np.float16))) == 0


def test_a_whitening_comes_back_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    assert load_whitening(tmp_path) is None
    wanted = symmetric(np.random.default_rng(1), 3)
    save_whitening(tmp_path, wanted.astype(np.float64))
    np.testing.assert_array_equal(load_whitening(tmp_path), wanted)
    with pytest.raises(BundleError, match=r"the whitening is \[3, 3\] where styles have 4 numbers"):
        Styles(np.eye(4), wanted)
    path = tmp_path / "whitening.npy"
    for wrong in (
        wanted.astype(np.float32),
        np.triu(wanted),
        wanted[:2],
        wanted[0],
        wanted * np.float16(np.nan),
    ):
        np.save(path, wrong)
        with pytest.raises(BundleError, match="is not a symmetric"):
            load_whitening(tmp_path)
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(BundleError, match="rebuild the index"):
        load_whitening(tmp_path)


def test_a_search_compares_styles_as_its_bundle_says(tmp_path: Path) -> None:
    plain = Bundle.open(tiny_bundle_folder())
    assert plain.styles.whitening is None
    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    index = Path(shutil.copytree(parts["index"], tmp_path / "index"))
    whitening = symmetric(np.random.default_rng(2), plain.stage2.shape[1])
    save_whitening(index, whitening)
    bundle = Bundle.build(tmp_path / "bundle", **(parts | {"index": index}))
    assert "index/whitening.npy" in bundle.manifest.files
    np.testing.assert_array_equal(bundle.styles.whitening, whitening)
    # What is one sound is decided by the styles as they are.
    np.testing.assert_array_equal(bundle.leader_of, plain.leader_of)

    patch = plain.patches[5].patch_id
    compared = whitened(bundle.stage2, whitening)
    engine = Engine(bundle, OnnxModels({name: bundle.path(name) for name in bundle.manifest.models}))
    found = engine.search(Like(patch), pitch=60.0, fold=False)
    engine.close()
    (own,) = (row for row in bundle.rows_of(patch) if bundle.renders[row].key == 60)
    for hit in found.hits:
        (row,) = (
            row
            for row in bundle.rows_of(hit.patch_id)
            if round(bundle.renders[row].f0_midi) == hit.pitch == 60
        )
        assert hit.stage2_distance == pytest.approx(1.0 - compared[own] @ compared[row], abs=1e-3)
    assert [hit.stage2_distance for hit in found.hits] == sorted(hit.stage2_distance for hit in found.hits)
