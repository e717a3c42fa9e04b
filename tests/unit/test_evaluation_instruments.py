"""Instrument retrieval on notes whose places were chosen by hand."""

from __future__ import annotations

import numpy as np
import pytest

from timbrel.evaluation.instruments import NoteLabels, instrument_hits, references


def labels(*notes: tuple[int, float, int]) -> NoteLabels:
    instrument, pitch, velocity = (np.array(column) for column in zip(*notes, strict=True))
    return NoteLabels(instrument, pitch, velocity)


def test_the_reference_is_the_note_of_median_pitch_at_velocity_100() -> None:
    notes = labels(
        (7, 48.0, 100), (7, 60.0, 100), (7, 72.0, 100), (7, 60.0, 40), (2, 61.0, 100), (2, 50.0, 100), (3, 60.0, 90)
    )  # fmt: skip
    # Of 2's two notes both are as near to the median (55.5): the lower. 3 has none at velocity 100.
    assert references(notes).tolist() == [5, 1]


def test_hits_by_hand() -> None:
    """Instruments on a line: 0 at 0, 1 at 10, 2 at 20, one query each at 1, 16 and 24."""
    notes = labels((0, 60, 100), (1, 60, 100), (2, 60, 100), (0, 62, 90), (1, 62, 90), (2, 62, 90))
    vectors = np.array([[0.0], [10.0], [20.0], [1.0], [16.0], [24.0]])
    found = instrument_hits(vectors, notes, metric="l2", at=(1, 2))
    # 16 lies nearer to 20 than to 10.
    assert found == {"top1": pytest.approx(2 / 3), "top2": 1.0, "queries": 3.0}


def test_ties_count_against_the_query() -> None:
    notes = labels((0, 60, 100), (1, 60, 100), (0, 62, 90))
    found = instrument_hits(np.array([[0.0], [4.0], [2.0]]), notes, metric="l2", at=(1, 2))
    assert found == {"top1": 0.0, "top2": 1.0, "queries": 1.0}


def test_cosine_looks_past_length() -> None:
    notes = labels((0, 60, 100), (1, 60, 100), (0, 62, 90))
    vectors = np.array([[1.0, 0.0], [6.0, 6.0], [9.0, 1.0]])
    assert instrument_hits(vectors, notes, metric="cosine", at=(1,))["top1"] == 1.0
    assert instrument_hits(vectors, notes, metric="l2", at=(1,))["top1"] == 0.0


def test_a_query_finds_its_instrument_by_its_notes_nearby() -> None:
    notes = labels((0, 60, 100), (0, 61, 100), (0, 72, 100), (1, 60, 100), (1, 61, 100), (1, 72, 100))
    vectors = np.array([[0.0], [0.1], [9.0], [5.0], [5.1], [0.2]])
    found = instrument_hits(vectors, notes, metric="l2", window=1.0, at=(1, 2))
    # References are the notes of 61. Queries: 60 of either finds 61 of its own; 72 of either has none nearby.
    assert found == {"top1": 0.5, "top2": 0.5, "queries": 4.0}
