"""The library's cells: made of what it holds, the same each time, and where a query falls among them."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny_bundle import tiny_bundle_folder

from timbrel.library.bundle import Bundle
from timbrel.library.reference import CELLS, Reference, hubs_of, pitch_edges


def test_the_shares_are_those_of_the_librarys_own_renders() -> None:
    bundle = Bundle.open(tiny_bundle_folder())
    reference, again = Reference.of(bundle), Reference.of(bundle)
    assert np.array_equal(reference.centroids, again.centroids)
    assert np.array_equal(reference.edges, again.edges)

    vectors = bundle.index.vectors(np.arange(len(bundle.renders)))
    pitches = [render.f0_midi for render in bundle.renders]
    embedding = [reference.embedding_cell(vector) for vector in vectors]
    pitch = [reference.pitch_cell(None if np.isnan(each) else each) for each in pitches]
    assert (np.bincount(embedding, minlength=CELLS) / 70).tolist() == reference.embedding_shares.tolist()
    assert (np.bincount(pitch, minlength=CELLS) / 70).tolist() == reference.pitch_shares.tolist()
    # Hiss has no pitch at five keys; the tones are at 48, 54, … 72, and Octave Up reaches to 84.
    assert reference.pitch_shares[0] == pytest.approx(5 / 70)
    assert reference.pitch_shares[1] == 0
    assert np.count_nonzero(reference.embedding_shares) >= 8
    bundle.close()


def test_a_library_of_few_keys_has_a_range_around_each() -> None:
    pitches = np.repeat([36.0, 45.1, 53.0, 59.9, 67.0], 100)
    edges = pitch_edges(pitches)
    assert edges.tolist() == [31.5, 40.5, 49.0, 56.5, 63.5, 70.5]
    # What little lies elsewhere moves nothing.
    assert pitch_edges(np.append(pitches, [24.0, 96.0])).tolist() == edges.tolist()


def test_a_library_of_every_key_has_ranges_that_hold_the_same() -> None:
    pitches = np.repeat(np.arange(40.0, 92.0), 10)
    edges = pitch_edges(pitches)
    assert len(edges) == CELLS - 2
    held = np.histogram(pitches, edges)[0]
    assert held.sum() == len(pitches)
    assert held.min() >= 30
    assert held.max() <= 50


def test_a_library_of_one_key_or_of_none_has_cells_too() -> None:
    assert pitch_edges(np.full(9, 60.2)).tolist() == [59.5, 60.5]
    assert pitch_edges(np.empty(0)).tolist() == []


@pytest.mark.parametrize(
    ("midi", "cell"),
    [(None, 0), (31.4, 1), (31.5, 2), (36.0, 2), (40.6, 3), (70.4, 6), (70.5, 7), (127.0, 7)],
)
def test_a_pitch_falls_into_the_range_around_the_nearest_key(midi: float | None, cell: int) -> None:
    reference = Reference(
        centroids=np.eye(2, dtype=np.float32),
        edges=np.array([31.5, 40.5, 49.0, 56.5, 63.5, 70.5]),
        embedding_shares=np.zeros(CELLS),
        pitch_shares=np.zeros(CELLS),
        hubs=frozenset(),
    )
    assert reference.pitch_cell(midi) == cell


def test_hubs_are_the_twentieth_whose_neighbours_are_nearest() -> None:
    bundle = Bundle.open(tiny_bundle_folder())
    assert hubs_of(bundle) == frozenset()  # it has no scales
    scales = np.ones(len(bundle.renders), dtype=np.float32)
    scales[bundle.patch_of == 4] = 0.9
    # One render with near neighbours makes no hub of its patch.
    scales[bundle.rows_of(bundle.patches[7].patch_id)[0]] = 0.5
    bundle.scales = scales
    assert hubs_of(bundle) == {bundle.patches[4].patch_id}
    bundle.close()
