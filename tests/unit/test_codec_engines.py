"""The measurement on unseen engines, with codecs whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from timbrel.codec.baselines import FullMagnitudeCodec
from timbrel.evaluation.codec_engines import measure, shortcomings


def tone(hertz: float, level: float) -> np.ndarray:
    time = np.arange(24_000) / 24_000
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def by_zero_crossings(sound: np.ndarray) -> float:
    """MIDI of a sine; nan below -40 dBFS."""
    if np.abs(sound).max() < 0.01:
        return math.nan
    crossings = np.flatnonzero((sound[6_000:-6_000][:-1] < 0) & (sound[6_000:-6_000][1:] >= 0))
    return 69.0 + 12.0 * math.log2(24_000 / float(np.diff(crossings).mean()) / 440.0)


class Silence:
    """A codec that keeps nothing."""

    def encode(self, audio: np.ndarray) -> np.ndarray:
        return np.zeros((len(audio) // 320, 128), dtype=np.float32)

    def decode(self, embedding: np.ndarray) -> np.ndarray:
        return np.zeros(len(embedding) * 320, dtype=np.float32)


def test_notes_are_counted_per_engine_and_together() -> None:
    notes = {"one": [tone(220.0, 0.5), tone(330.0, 0.5), tone(220.0, 1e-3)], "other": [tone(440.0, 0.5)]}
    figures = measure(Silence(), notes, by_zero_crossings)
    assert (figures["notes"], figures["voiced"]) == (4, 3)
    assert (figures["engines"]["one"]["notes"], figures["engines"]["one"]["voiced"]) == (3, 2)
    assert figures["codec"]["f0_kept"] == 0.0
    assert figures["full_magnitude"]["f0_kept"] == 1.0
    assert figures["mel_floor"]["f0_kept"] == 1.0
    one, other = (figures["engines"][name]["codec"]["lsd_db"] for name in ("one", "other"))
    assert figures["codec"]["lsd_db"] == pytest.approx((3 * one + other) / 4)
    assert figures["below_floor_db"] == pytest.approx(
        figures["mel_floor"]["lsd_db"] - figures["codec"]["lsd_db"]
    )
    assert figures["below_floor_db"] < 0.0


def test_what_falls_short_is_said() -> None:
    figures = {"codec": {"f0_kept": 0.985, "lsd_db": 5.5}, "below_floor_db": 1.5}
    assert shortcomings(figures) == [
        "F0 kept on 0.9850 of the voiced notes, not 0.99",
        "log-spectral distance 5.50 dB, over 5.0",
        "1.50 dB below the floor, not 2.0",
    ]
    assert shortcomings({"codec": {"f0_kept": 0.99, "lsd_db": 5.0}, "below_floor_db": 2.0}) == []
    assert len(shortcomings({"codec": {"f0_kept": math.nan, "lsd_db": 2.0}, "below_floor_db": 3.0})) == 1


def test_the_ceiling_measured_as_a_codec_is_the_ceiling() -> None:
    figures = measure(FullMagnitudeCodec(), {"one": [tone(220.0, 0.5)]}, by_zero_crossings)
    assert figures["codec"]["lsd_db"] == figures["full_magnitude"]["lsd_db"]
