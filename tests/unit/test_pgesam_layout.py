"""The first map: neighbours stay neighbours, the disc is filled evenly."""

import numpy as np
import pytest

from timbrel.pgesam.dataset import MapNotes
from timbrel.pgesam.layout import RADIUS, instrument_layout, instrument_means, spread_over_disc, tsne


@pytest.fixture
def three_clusters():
    rng = np.random.default_rng(2)
    centres = 10.0 * np.eye(3, 8)
    return np.concatenate([centre + 0.3 * rng.standard_normal((12, 8)) for centre in centres])


def test_clusters_stay_together(three_clusters):
    places = tsne(three_clusters)
    assert np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places[None, :], axis=-1)
    np.fill_diagonal(distances, np.inf)
    cluster = np.repeat(np.arange(3), 12)
    assert (cluster[distances.argmin(1)] == cluster).all()
    np.testing.assert_array_equal(places, tsne(three_clusters))


def test_the_disc_is_filled_evenly_and_not_stretched():
    stretched = np.random.default_rng(0).standard_normal((400, 2)) * [5.0, 0.1]
    disc = spread_over_disc(stretched)
    radius = np.linalg.norm(disc, axis=1)
    assert radius.max() < RADIUS
    # Even over area: a quarter of the points lie within half the radius.
    assert np.mean(radius < RADIUS / 2) == pytest.approx(0.25, abs=0.01)
    variances = np.linalg.eigvalsh(np.cov(disc.T))
    assert variances[1] / variances[0] < 1.3


def test_means_are_relative_to_the_pitch():
    # Two instruments, three pitches: embedding = 10 · pitch + (1 or 3), constant in time.
    values = [10.0 * pitch + timbre for timbre in (1.0, 3.0) for pitch in range(3)]
    embeddings = np.stack([np.full((12, 2), value, dtype=np.float16) for value in values])
    notes = MapNotes(
        row=np.arange(6),
        instrument=np.repeat([0, 1], 3),
        family=np.zeros(6, dtype=np.int64),
        pitch=np.tile([0, 1, 2], 2),
        split=np.repeat("train", 6),
        instruments=("a", "b"),
    )
    means = instrument_means(embeddings, notes, frames=12)
    np.testing.assert_allclose(means, [[-1.0] * 12, [1.0] * 12])
    assert instrument_layout(embeddings, notes, frames=12).shape == (2, 2)
