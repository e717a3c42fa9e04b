"""Scales by hand, on a circle where every distance is known; and in the order of a search."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import bundle_parts, tiny_bundle_folder

from timbrel.errors import BundleError
from timbrel.library import hubness, two_stage
from timbrel.library.bundle import Bundle
from timbrel.library.index import Found, PitchIndex
from timbrel.library.styles import Styles
from timbrel.library.tables import Render


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def render(row: int, patch: int, f0_midi: float) -> Render:
    return Render(
        row=row, patch_id=str(patch), note_id="", key=60, velocity=100, f0_midi=f0_midi, f0_confidence=1.0
    )


def test_the_mean_is_that_of_the_nearest_or_of_what_there_is() -> None:
    assert hubness.mean_of_nearest(np.array([0.4, 0.1, 0.2])) == pytest.approx(0.7 / 3)
    many = np.concatenate([np.full(5, 99.0), np.arange(hubness.NEIGHBOURS)])
    assert hubness.mean_of_nearest(many) == pytest.approx((hubness.NEIGHBOURS - 1) / 2)
    assert math.isnan(hubness.mean_of_nearest(np.empty(0)))


def test_scales_are_powers_of_mean_distances_relative_to_the_median() -> None:
    near = [np.array([0.1]), np.array([0.4]), np.array([0.9]), np.empty(0), np.array([1e-9])]
    scales = hubness.scales_of(5, near.__getitem__)
    # The median of .1, .4, .9 and (nearly) 0 is .25.
    assert hubness.STRENGTH == 0.25
    expected = [0.4**0.25, 1.6**0.25, 3.6**0.25, 1.0, hubness.LEAST]
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    assert scales.dtype == np.float32


def test_a_library_of_equal_sounds_has_no_scales_to_speak_of() -> None:
    assert hubness.scales_of(3, lambda row: np.zeros(2)).tolist() == [1.0, 1.0, 1.0]


def test_neighbours_are_other_patches_near_the_pitch() -> None:
    """Patches 0-2 at 60, at 0°, 60° and 90°; patch 0 again at 60, at 1°; one at 72, one without a pitch."""
    vectors = on_circle(0, 60, 90, 1, 0, 0)
    patch_of = np.array([0, 1, 2, 0, 3, 4])
    renders = [
        render(row, int(patch_of[row]), pitch) for row, pitch in enumerate([60, 60, 60, 60, 72, math.nan])
    ]
    index = PitchIndex.build(vectors, np.array([each.f0_midi for each in renders]), encoder="e")
    scales = hubness.library_scales(
        index, renders, patch_of=patch_of, stage1=vectors, stage2=Styles(vectors), window=12
    )

    def away(degrees: float) -> float:
        return 1 - math.cos(math.radians(degrees))

    def mean(*degrees: float) -> float:
        return float(np.mean([away(each) for each in degrees]))

    means = np.array(
        [
            mean(60, 90, 0),  # 1, 2 and 3; not its own patch, nor what has no pitch
            mean(60, 30, 59, 60),  # both renders of 0
            mean(90, 30, 89, 90),
            mean(59, 89, 1),
            mean(0, 60, 90, 1),
            mean(0, 60, 90, 1, 0),  # without a pitch: everything
        ]
    )
    np.testing.assert_allclose(scales, (means / np.median(means)) ** hubness.STRENGTH, rtol=1e-3)


def test_the_order_follows_the_scaled_distance_and_the_plain_one_is_told() -> None:
    stage2 = on_circle(20, 30)
    found = Found(np.array([0, 1]), np.array([0.1, 0.2], np.float32))
    query = on_circle(0)[0]
    scales = np.array([0.5, 2.0], np.float32)
    matches = two_stage.order(
        found, query=query, stage2=Styles(stage2), patch_of=np.arange(2), k=2, scales=scales
    )
    plain = [1 - math.cos(math.radians(30)), 1 - math.cos(math.radians(20))]
    assert [match.row for match in matches] == [1, 0]
    assert [match.stage2_distance for match in matches] == pytest.approx(plain, abs=1e-6)
    assert [match.distance for match in matches] == pytest.approx([plain[0] / 2, plain[1] * 2], abs=1e-6)


def test_what_equals_the_query_stays_first() -> None:
    stage2 = on_circle(0, 5)
    found = Found(np.array([0, 1]), np.array([0.1, 0.1], np.float32))
    scales = np.array([hubness.LEAST, 100.0], np.float32)
    matches = two_stage.order(
        found, query=stage2[0], stage2=Styles(stage2), patch_of=np.arange(2), k=2, scales=scales
    )
    assert [match.row for match in matches] == [0, 1]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0]))
def test_equal_scales_change_no_order(seed: int, count: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    stage2 = rng.standard_normal((count, 6)).astype(np.float32)
    stage2 /= np.linalg.norm(stage2, axis=1, keepdims=True)
    found = Found(np.arange(count), rng.random(count).astype(np.float32))
    patch_of = rng.integers(0, count, count)

    def order(scales: np.ndarray | None) -> list[tuple[int, float, float]]:
        matches = two_stage.order(
            found, query=stage2[0], stage2=Styles(stage2), patch_of=patch_of, k=count, scales=scales
        )
        return [(match.row, match.stage1_distance, match.stage2_distance) for match in matches]

    assert order(np.full(count, scale, np.float32)) == order(None)


def test_a_bundle_carries_them_and_one_without_searches_as_it_is(tmp_path: Path) -> None:
    assert Bundle.open(tiny_bundle_folder()).scales is None
    parts = bundle_parts(tiny_bundle_folder().with_name("bundle.parts"))
    index = Path(shutil.copytree(parts["index"], tmp_path / "index"))
    scales = np.linspace(0.5, 1.5, 70).astype(np.float32)
    hubness.save_scales(index, scales)
    bundle = Bundle.build(tmp_path / "bundle", **(parts | {"index": index}))
    assert bundle.scales is not None
    np.testing.assert_array_equal(bundle.scales, scales)
    assert "index/scales.npy" in bundle.manifest.files
    for wrong in (scales[1:], -scales, scales.astype(np.float64), np.full(70, np.nan, np.float32)):
        np.save(index / hubness.FILE_NAME, wrong)
        with pytest.raises(BundleError, match="rebuild the index"):
            Bundle.build(tmp_path / "bundle", **(parts | {"index": index}))
    (index / hubness.FILE_NAME).write_bytes(b"torn")
    with pytest.raises(BundleError, match="cannot be read"):
        hubness.load_scales(index, 70)
