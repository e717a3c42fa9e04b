"""The gate: every decision, its boundaries, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from timbrel.errors import InputError, UnsuitableQuery
from timbrel.pitch.estimate import PitchEstimate, estimate
from timbrel.pitch.gate import Decision, GateDecision, Mode, decide, require, sounding_seconds

RATE = 24_000
TONE = (0.5 * np.sin(2 * np.pi * 220.0 * np.arange(RATE) / RATE)).astype(np.float32)
UNVOICED = PitchEstimate(math.nan, math.nan, 0.2, 0.1, "swift-f0")


def voiced(midi: float) -> PitchEstimate:
    return PitchEstimate(440.0 * 2 ** ((midi - 69) / 12), midi, 0.9, 0.95, "swift-f0")


def judge(audio: np.ndarray, found: PitchEstimate, **options: object) -> GateDecision:
    return decide(audio, RATE, found, lowest=48.0, highest=72.0, **options)  # type: ignore[arg-type]


def test_pitched() -> None:
    decision = judge(TONE, voiced(57.02))
    assert decision == GateDecision(Decision.PITCHED, "MIDI 57.0 by swift-f0, confidence 0.90", 57.02, 0.9)
    assert decision.conditions
    assert decision.has_sound


def test_measured_and_judged() -> None:
    decision = judge(TONE, estimate(TONE, RATE))
    assert decision.decision is Decision.PITCHED
    assert decision.midi == pytest.approx(57.0, abs=0.1)


def test_unpitched() -> None:
    decision = judge(TONE, UNVOICED)
    assert (decision.decision, decision.midi) == (Decision.UNPITCHED, None)
    assert "10% of the sound is voiced" in decision.reason


@pytest.mark.parametrize(
    ("midi", "expected"),
    [
        (46.9, Decision.OUT_OF_RANGE),
        (47.0, Decision.PITCHED),
        (48.0, Decision.PITCHED),
        (73.0, Decision.PITCHED),
        (73.1, Decision.OUT_OF_RANGE),
    ],
)
def test_the_library_range_has_a_margin_of_a_semitone(midi: float, expected: Decision) -> None:
    assert judge(TONE, voiced(midi)).decision is expected


def test_out_of_range_says_the_range() -> None:
    reason = judge(TONE, voiced(100.0)).reason
    assert reason == "MIDI 100.0 lies outside the library, which sounds from 48.0 to 72.0"


@pytest.mark.parametrize("level", [0.0, 1e-4, 4e-4])
def test_silent(level: float) -> None:
    decision = judge(TONE * np.float32(2 * level), voiced(57.0))
    assert decision.decision is Decision.SILENT
    assert not decision.has_sound


def test_direct_current_and_nothing_at_all_are_silent() -> None:
    assert judge(np.full(RATE, 0.7, dtype=np.float32), UNVOICED).decision is Decision.SILENT
    assert judge(np.zeros(0, dtype=np.float32), UNVOICED).decision is Decision.SILENT


def test_just_above_silence() -> None:
    assert judge(TONE * np.float32(1.02e-3), voiced(57.0)).decision is Decision.PITCHED


@pytest.mark.parametrize(("milliseconds", "expected"), [(40, Decision.TOO_SHORT), (60, Decision.PITCHED)])
def test_too_short_counts_what_sounds(milliseconds: int, expected: Decision) -> None:
    tone = TONE[: RATE * milliseconds // 1000]
    assert judge(tone, voiced(57.0)).decision is expected
    assert judge(np.pad(tone, (RATE, RATE)), voiced(57.0)).decision is expected


def test_override() -> None:
    decision = judge(TONE, UNVOICED, override=60)
    assert (decision.decision, decision.midi, decision.confidence) == (Decision.OVERRIDDEN, 60.0, 1.0)


def test_override_out_of_range() -> None:
    decision = judge(TONE, voiced(60.0), override=100)
    assert (decision.decision, decision.midi) == (Decision.OUT_OF_RANGE, None)


def test_override_does_not_make_silence_sound() -> None:
    assert judge(np.zeros(RATE, dtype=np.float32), UNVOICED, override=60).decision is Decision.SILENT


def test_off_conditions_on_nothing() -> None:
    decision = judge(TONE, voiced(60.0), mode="off", override=61)
    assert (decision.decision, decision.midi, decision.conditions) == (Decision.OFF, None, False)


@pytest.mark.parametrize("override", [-1, 127.5, 200, math.nan])
def test_an_override_is_a_midi_number(override: float) -> None:
    with pytest.raises(InputError, match="MIDI number from 0 to 127"):
        judge(TONE, voiced(60.0), override=override)


def test_an_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="auto, require, off, not 'maybe'"):
        judge(TONE, voiced(60.0), mode="maybe")


@pytest.mark.parametrize("found", [UNVOICED, voiced(100.0)])
def test_require_refuses_with_the_reason_and_the_remedy(found: PitchEstimate) -> None:
    decision = judge(TONE, found, mode=Mode.REQUIRE)
    with pytest.raises(UnsuitableQuery, match="gate=auto") as caught:
        require(decision)
    assert decision.reason in caught.value.message
    assert caught.value.http_status == 422


def test_require_lets_the_pitched_pass() -> None:
    require(judge(TONE, voiced(57.0), mode=Mode.REQUIRE))
    require(judge(TONE, UNVOICED, mode=Mode.REQUIRE, override=57))


def test_sounding_seconds() -> None:
    assert sounding_seconds(TONE, RATE) == 1.0
    assert sounding_seconds(np.zeros(0), RATE) == 0.0
    assert sounding_seconds(np.zeros(RATE), RATE) == 0.0
    assert sounding_seconds(np.pad(TONE, (RATE, 3 * RATE)), RATE) == pytest.approx(1.0, abs=0.02)
    assert sounding_seconds(TONE[:100], RATE) == 100 / RATE
