"""The synthesis measurement: defects that are known by construction, and a bundle whose notes are in tune."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.tiny_bundle import tiny_bundle_folder

from timbrel.audio import Audio
from timbrel.engine.engine import Engine
from timbrel.evaluation.defects import Defects, defects
from timbrel.evaluation.synthesis_pitch import SynthesisSettings, measure
from timbrel.stages.evaluate import open_engine

RATE = 24_000
SINE = np.sin(2 * np.pi * 220.0 * np.arange(RATE) / RATE)
CLEAN = Defects(clipped=False, silent=False, clicking=False, cut_off=False, direct_current=False)


def note(samples: np.ndarray) -> Audio:
    return Audio(samples.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(tiny_bundle_folder()) as opened:
        yield opened


def test_a_note_with_attack_and_release_is_clean() -> None:
    envelope = np.minimum(1.0, np.minimum(np.arange(RATE), np.arange(RATE)[::-1]) / 2_400)
    assert defects(note(0.8 * SINE * envelope)) == CLEAN


def test_each_defect_is_told_by_itself() -> None:
    release = np.minimum(1.0, np.arange(RATE)[::-1] / 2_400)
    assert defects(note(np.clip(3 * SINE * release, -1, 1))).clipped
    assert defects(note(1e-4 * SINE)) == Defects(
        clipped=False, silent=True, clicking=False, cut_off=False, direct_current=False
    )
    assert defects(note(0.8 * np.cos(2 * np.pi * 220 * np.arange(RATE) / RATE) * release)).clicking
    assert defects(note(0.8 * SINE)).cut_off
    assert defects(note((0.5 * SINE + 0.02) * release)).direct_current


def test_nothing_is_silent() -> None:
    assert defects(note(np.zeros(0))).silent


def test_every_note_is_accounted_for(engine: Engine) -> None:
    found = measure(engine, SynthesisSettings(pairs=12, seconds=1.0, seed=3))
    results = found["results"]
    assert found["bundle"] == engine.bundle.id
    assert results["notes"] == 12
    assert sum(family["notes"] for family in results["within_50_cents_by_family"].values()) == 12
    # The tiny generator is a regression on tones at their pitches: in tune nearly everywhere.
    assert results["within_50_cents"] >= 0.75
    assert results["median_error_cents"] < 20.0
    assert results["clipped"] == results["silent"] == results["clicking"] == 0.0


def test_the_same_seed_gives_the_same_report(engine: Engine) -> None:
    settings = SynthesisSettings(pairs=4, seconds=0.5, seed=1)
    assert measure(engine, settings) == measure(engine, settings)
    other = measure(engine, SynthesisSettings(pairs=4, seconds=0.5, seed=2))
    assert other["results"] != measure(engine, settings)["results"]


def test_octave_errors_count_as_errors() -> None:
    """An engine that answers an octave too high, or with noise, is told so."""
    with open_engine(tiny_bundle_folder()) as engine:
        honest = engine.synthesize

        def octave_up(*, x: float, y: float, pitch: int, seconds: float) -> Audio:
            tone = 440.0 * 2 ** ((pitch + 12 - 69) / 12) * np.arange(round(seconds * RATE)) / RATE
            return note(0.5 * np.sin(2 * np.pi * tone) + 0.2 * np.sin(4 * np.pi * tone))

        def noise(*, x: float, y: float, pitch: int, seconds: float) -> Audio:
            return note(np.random.default_rng(pitch).normal(0, 0.1, round(seconds * RATE)))

        settings = SynthesisSettings(pairs=4, seconds=0.5, seed=1)
        engine.synthesize = octave_up  # type: ignore[method-assign]
        results = measure(engine, settings)["results"]
        assert (results["within_50_cents"], results["octave_errors"], results["unvoiced"]) == (0.0, 1.0, 0.0)
        engine.synthesize = noise  # type: ignore[method-assign]
        results = measure(engine, settings)["results"]
        assert (results["within_50_cents"], results["octave_errors"], results["unvoiced"]) == (0.0, 0.0, 1.0)
        engine.synthesize = honest  # type: ignore[method-assign]
