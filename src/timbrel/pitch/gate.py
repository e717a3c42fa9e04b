"""The gate: what a search does with the pitch of its query, and why.

    silent ─ too short ─ (override) ─ unpitched ─ out of range ─ pitched

in this order. Only a pitched or overridden query is compared with renders near its pitch; every other one
carries a reason, and is refused when the caller said ``require``. Chords are not told apart from tones: the
estimate either finds one pitch in them or none. Several recordings at once are held to the median of their
pitches where these agree; else they are mixed, and held to none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from timbrel.errors import InputError, UnsuitableQuery
from timbrel.pitch.estimate import PitchEstimate

# -66 dB re full scale, 16 steps of 16-bit audio.
SILENCE_PEAK = 5e-4
# Six periods of the map's lowest note (C3, 131 Hz): less has a colour no encoder here was shown.
MIN_SOUNDING_SECONDS = 0.05
SOUNDING_RANGE_DB = 40.0
# A query this many semitones beyond the outermost renders still has near neighbours among them.
RANGE_MARGIN = 1.0


class Mode(StrEnum):
    """What the caller asks of the gate."""

    AUTO = "auto"
    REQUIRE = "require"
    OFF = "off"


class Decision(StrEnum):
    PITCHED = "pitched"
    UNPITCHED = "unpitched"
    SILENT = "silent"
    TOO_SHORT = "too_short"
    OUT_OF_RANGE = "out_of_range"
    OVERRIDDEN = "overridden"
    MIXED = "mixed"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class GateDecision:
    """``midi`` is the pitch that the search is held to, None when to none; ``confidence`` is 0–1."""

    decision: Decision
    reason: str
    midi: float | None
    confidence: float

    @property
    def conditions(self) -> bool:
        """Whether the search looks only among renders near ``midi``."""
        return self.midi is not None

    @property
    def has_sound(self) -> bool:
        """False when there is nothing to compare: a search over silence would rank noise."""
        return self.decision not in (Decision.SILENT, Decision.TOO_SHORT)


def decide(
    audio: np.ndarray,
    sample_rate: int,
    estimate: PitchEstimate,
    *,
    lowest: float,
    highest: float,
    mode: Mode | str = Mode.AUTO,
    override: float | None = None,
) -> GateDecision:
    """Judge a query: ``audio`` [samples] with its measured pitch, against a library that sounds from
    ``lowest`` to ``highest`` (MIDI). ``override`` is a pitch the caller knows better.

    Raises InputError for a mode that does not exist and for an override that is no MIDI number.
    """
    if override is not None and not 0.0 <= override <= 127.0:
        raise InputError(f"pitch is a MIDI number from 0 to 127, not {override}")
    if parse(mode) is Mode.OFF:
        return opened(estimate.confidence)
    unusable = _unusable(audio, sample_rate)
    if unusable:
        return unusable
    if override is not None:
        return held(float(override), lowest=lowest, highest=highest)
    if not estimate.voiced:
        reason = f"no clear pitch ({estimate.voiced_share:.0%} of the sound is voiced)"
        return GateDecision(Decision.UNPITCHED, reason, None, estimate.confidence)
    midi, confidence = estimate.midi, estimate.confidence
    reason = f"MIDI {midi:.1f} by {estimate.estimator}, confidence {confidence:.2f}"
    decision = GateDecision(Decision.PITCHED, reason, midi, confidence)
    return _within(decision, midi, lowest=lowest, highest=highest)


def parse(mode: Mode | str) -> Mode:
    """Raises InputError for a mode that does not exist."""
    try:
        return Mode(mode)
    except ValueError:
        raise InputError(f"gate is one of auto, require, off, not {str(mode)!r}") from None


def opened(confidence: float) -> GateDecision:
    """The decision about a query whose caller said ``off``."""
    return GateDecision(Decision.OFF, "the gate is off: all pitches were searched", None, confidence)


def held(midi: float, *, lowest: float, highest: float) -> GateDecision:
    """The decision about a query whose pitch the caller named; out of range where the library has nothing."""
    decision = GateDecision(Decision.OVERRIDDEN, f"held to MIDI {midi:.1f}, as asked", midi, 1.0)
    return _within(decision, midi, lowest=lowest, highest=highest)


def combine(decisions: Sequence[GateDecision], *, window: float) -> GateDecision:
    """One decision about several recordings, two or more, each judged by ``decide``.

    Those with no sound are left out. The others are held to the median of their pitches when each has one, and none
    lies more than ``window`` semitones from it.
    """
    total = len(decisions)
    mute = [number for number, decision in enumerate(decisions, start=1) if not decision.has_sound]
    heard = [decision for decision in decisions if decision.has_sound]
    if not heard:
        return replace(decisions[0], reason=f"none of the {total} recordings sounds: {decisions[0].reason}")
    left_out = f"; without recording {', '.join(map(str, mute))}, which has no sound" if mute else ""
    confidence = min(decision.confidence for decision in heard)
    pitches = [decision.midi for decision in heard if decision.midi is not None]
    if len(heard) == 1 or heard[0].decision in (Decision.OFF, Decision.OVERRIDDEN):
        return replace(heard[0], reason=heard[0].reason + left_out, confidence=confidence)
    if not pitches:
        reason = f"none of {total} recordings has a pitch to hold the search to: {heard[0].reason}{left_out}"
        return GateDecision(heard[0].decision, reason, None, confidence)
    median = float(np.median(pitches))
    if len(pitches) == len(heard) and max(abs(pitch - median) for pitch in pitches) <= window:
        spread = f"MIDI {min(pitches):.1f} to {max(pitches):.1f}"
        reason = f"MIDI {median:.1f}, the median of {len(heard)} recordings ({spread}){left_out}"
        return GateDecision(Decision.PITCHED, reason, median, confidence)
    listed = ", ".join("none" if each.midi is None else f"{each.midi:.1f}" for each in heard)
    reason = f"the recordings do not agree on a pitch within {window:g} semitones (MIDI {listed}){left_out}"
    return GateDecision(Decision.MIXED, reason, None, confidence)


def require(decision: GateDecision) -> None:
    """Refuse a query whose pitch cannot hold the search (gate = require). Raises UnsuitableQuery."""
    if not decision.conditions:
        advice = "send one clear note, name its pitch, or use gate=auto"
        raise UnsuitableQuery(f"{decision.decision.value}: {decision.reason}; {advice}")


def _within(decision: GateDecision, midi: float, *, lowest: float, highest: float) -> GateDecision:
    """The decision, unless its pitch lies where the library has nothing."""
    if lowest - RANGE_MARGIN <= midi <= highest + RANGE_MARGIN:
        return decision
    reason = f"MIDI {midi:.1f} lies outside the library, which sounds from {lowest:.1f} to {highest:.1f}"
    return GateDecision(Decision.OUT_OF_RANGE, reason, None, decision.confidence)


def sounding_seconds(audio: np.ndarray, sample_rate: int) -> float:
    """How much of ``audio`` [samples] lies within 40 dB of its loudest 10 ms."""
    if not len(audio):
        return 0.0
    block = max(1, sample_rate // 100)
    padded = np.pad(audio.astype(np.float64), (0, -len(audio) % block)).reshape(-1, block)
    energy = np.square(padded).sum(axis=1)
    sounding = int((energy > energy.max() * 10.0 ** (-SOUNDING_RANGE_DB / 10.0)).sum())
    return min(sounding * block, len(audio)) / sample_rate


def _unusable(audio: np.ndarray, sample_rate: int) -> GateDecision | None:
    centred = audio - audio.mean(dtype=np.float64) if len(audio) else audio
    peak = float(np.abs(centred).max(initial=0.0))
    if peak < SILENCE_PEAK:
        level = f"{20 * math.log10(peak):.0f} dBFS" if peak > 0 else "no signal"
        return GateDecision(Decision.SILENT, f"the recording is silent ({level})", None, 0.0)
    seconds = sounding_seconds(centred, sample_rate)
    if seconds < MIN_SOUNDING_SECONDS:
        reason = f"only {1000 * seconds:.0f} ms sound, {1000 * MIN_SOUNDING_SECONDS:.0f} are needed"
        return GateDecision(Decision.TOO_SHORT, reason, None, 0.0)
    return None
