"""One fundamental frequency for a recording of one sound.

SwiftF0 (a small network, 46.9–2093.8 Hz) is asked first. It is not level-normalised, reads half of a tone
above its range and a harmonic of one below it, and distrusts pure sines; there YIN (``yin.py``) is asked as
well. The answer is the median over the frames that are voiced, among the frames that sound.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soxr

from timbrel.errors import AudioError
from timbrel.pitch import yin
from timbrel.pitch.scale import cents_between, hz_to_midi

if TYPE_CHECKING:
    from swift_f0 import SwiftF0

SWIFT_RATE = 16_000
SWIFT_LOWEST_HZ = 46.875
SWIFT_HIGHEST_HZ = 2093.75
YIN_RATE = 24_000
VOICED_CONFIDENCE = 0.5
# A sound is pitched when this share of its sounding frames is voiced.
MIN_VOICED_SHARE = 0.3
# Frames this far below the loudest one are tails and noise floors.
SOUNDING_RANGE_DB = 35.0
# Peak below which there is nothing to measure: -80 dB re full scale, three steps of 16-bit audio.
SILENCE_PEAK = 1e-4
# Where SwiftF0 may have taken a harmonic of a lower tone, or half of a higher one, for the tone itself.
TRUSTED_FROM_HZ = 130.0
TRUSTED_TO_HZ = 1_000.0
TRUSTED_CONFIDENCE = 0.8
SURE_CONFIDENCE = 0.95
RELATED_CENTS = 60.0
# A chord repeats at a common part of its notes, where nothing sounds; a tone that only YIN hears must sound
# where YIN hears it.
MIN_FUNDAMENTAL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PitchEstimate:
    """What was measured. ``f0_hz`` and ``midi`` are nan when the sound is unvoiced.

    ``confidence`` (0–1) is the median over the voiced frames, or over the sounding frames when unvoiced;
    ``voiced_share`` is the share of the sounding frames; ``estimator`` is "swift-f0", "yin", or "none"
    for silence.
    """

    f0_hz: float
    midi: float
    confidence: float
    voiced_share: float
    estimator: str

    @property
    def voiced(self) -> bool:
        return math.isfinite(self.f0_hz)


def estimate(audio: np.ndarray, sample_rate: int, *, seconds: float = 3.0) -> PitchEstimate:
    """The F0 of ``audio`` [samples], looking at its loudest ``seconds``.

    Raises AudioError when a sample is not finite.
    """
    audio, silence = _prepare(audio, sample_rate, seconds)
    if silence:
        return silence
    swift = _by_swift(audio, sample_rate)
    clear = swift.voiced_share >= 0.5 and swift.confidence >= TRUSTED_CONFIDENCE
    if clear and TRUSTED_FROM_HZ <= swift.f0_hz <= TRUSTED_TO_HZ:
        return swift
    second = _by_yin(audio, sample_rate)
    return _choose(swift, second, _share_at(audio, sample_rate, second.f0_hz) if second.voiced else 0.0)


def estimate_by_swift(audio: np.ndarray, sample_rate: int, *, seconds: float = 3.0) -> PitchEstimate:
    """As ``estimate``, by SwiftF0 alone: what others, too, can measure."""
    audio, silence = _prepare(audio, sample_rate, seconds)
    return silence or _by_swift(audio, sample_rate)


def estimate_by_period(audio: np.ndarray, sample_rate: int, *, seconds: float = 3.0) -> PitchEstimate:
    """As ``estimate``, by YIN alone, and unvoiced unless its answer is beyond doubt: periodic in most frames, and
    with energy at the F0 itself, not only at its multiples (a chord, too, repeats at a common part of its notes).

    For sounds that SwiftF0 does not know: near-sines, of which it takes the half, and bars and bells, whose upper
    modes are no multiples of the lowest.
    """
    audio, silence = _prepare(audio, sample_rate, seconds)
    if silence:
        return silence
    found = _by_yin(audio, sample_rate)
    sure = found.voiced and found.voiced_share >= 0.5 and found.confidence >= SURE_CONFIDENCE
    if sure and _share_at(audio, sample_rate, found.f0_hz) >= MIN_FUNDAMENTAL_SHARE:
        return found
    return PitchEstimate(math.nan, math.nan, found.confidence, found.voiced_share, "yin")


def loudest_stretch(audio: np.ndarray, sample_rate: int, seconds: float) -> np.ndarray:
    """The stretch [samples] of ``seconds`` that holds the most energy; all of a shorter recording."""
    length = max(1, round(seconds * sample_rate))
    if len(audio) <= length:
        return audio
    # Energy per 10 ms block is fine enough to place the stretch, and cheap on a long recording.
    block = max(1, sample_rate // 100)
    blocks = audio[: len(audio) // block * block].astype(np.float64).reshape(-1, block)
    energy = np.concatenate([[0.0], np.cumsum(np.square(blocks).sum(axis=1))])
    width = max(1, length // block)
    start = int(np.argmax(energy[width:] - energy[:-width])) * block
    return audio[start : start + length]


def _prepare(audio: np.ndarray, sample_rate: int, seconds: float) -> tuple[np.ndarray, PitchEstimate | None]:
    """The loudest stretch, centred, at half of full scale; and the answer, where nothing sounds in it."""
    audio = loudest_stretch(np.asarray(audio, dtype=np.float32), sample_rate, seconds)
    if not np.isfinite(audio).all():
        raise AudioError("the audio holds NaN or infinite samples: export it again")
    if len(audio):
        audio = audio - audio.mean(dtype=np.float64).astype(np.float32)
    peak = float(np.abs(audio).max(initial=0.0))
    if peak < SILENCE_PEAK:
        return audio, PitchEstimate(math.nan, math.nan, 0.0, 0.0, "none")
    return audio * np.float32(0.5 / peak), None


def _by_swift(audio: np.ndarray, sample_rate: int) -> PitchEstimate:
    if sample_rate != SWIFT_RATE:
        audio = soxr.resample(audio, sample_rate, SWIFT_RATE)
    if not len(audio):
        return PitchEstimate(math.nan, math.nan, 0.0, 0.0, "swift-f0")
    found = _swift().detect(audio, SWIFT_RATE)
    sounding = found.loudness_db >= found.loudness_db.max() - SOUNDING_RANGE_DB
    return _summarise(found.pitch_hz[sounding], found.confidence[sounding], "swift-f0")


def _by_yin(audio: np.ndarray, sample_rate: int) -> PitchEstimate:
    if sample_rate != YIN_RATE:
        audio = soxr.resample(audio, sample_rate, YIN_RATE)
    found = yin.track(audio, YIN_RATE)
    if not len(found.f0_hz):
        return PitchEstimate(math.nan, math.nan, 0.0, 0.0, "yin")
    sounding = found.power >= found.power.max() * 10.0 ** (-SOUNDING_RANGE_DB / 10.0)
    return _summarise(found.f0_hz[sounding], 1.0 - found.aperiodicity[sounding], "yin")


def _summarise(f0_hz: np.ndarray, confidence: np.ndarray, estimator: str) -> PitchEstimate:
    voiced = (confidence >= VOICED_CONFIDENCE) & np.isfinite(f0_hz)
    share = float(voiced.mean())
    if share < MIN_VOICED_SHARE:
        return PitchEstimate(math.nan, math.nan, float(np.median(confidence)), share, estimator)
    f0 = float(np.median(f0_hz[voiced]))
    return PitchEstimate(f0, hz_to_midi(f0), float(np.median(confidence[voiced])), share, estimator)


def _choose(swift: PitchEstimate, second: PitchEstimate, fundamental_share: float) -> PitchEstimate:
    """Which of two answers stands where SwiftF0's alone does not suffice."""
    sure = second.voiced and second.voiced_share >= 0.5
    if swift.voiced and sure:
        # A tone outside SwiftF0's range is read as a whole multiple or a whole part of the truth, and so,
        # near the ends of its range, are some inside. Periodicity decides, where it is beyond doubt.
        ratio = max(swift.f0_hz / second.f0_hz, second.f0_hz / swift.f0_hz)
        octave_like = round(ratio) > 1 and abs(cents_between(ratio, round(ratio))) < RELATED_CENTS
        if octave_like and second.confidence >= SURE_CONFIDENCE:
            return second
    if swift.voiced_share >= 0.5 or not sure:
        return swift
    inside = SWIFT_LOWEST_HZ <= second.f0_hz <= SWIFT_HIGHEST_HZ
    return swift if inside and fundamental_share < MIN_FUNDAMENTAL_SHARE else second


def _share_at(audio: np.ndarray, sample_rate: int, f0_hz: float) -> float:
    """The share of the energy within a semitone of ``f0_hz`` (within two bins, for a short sound)."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    distance = np.abs(np.fft.rfftfreq(len(audio), 1.0 / sample_rate) - f0_hz)
    width = max(f0_hz * (2.0 ** (1.0 / 12.0) - 1.0), 2.0 * sample_rate / len(audio))
    return float(power[distance <= width].sum() / max(power.sum(), 1e-20))


_session: SwiftF0 | None = None
_session_lock = threading.Lock()


def _swift() -> SwiftF0:
    """The process's one SwiftF0: a single thread, safe to share between threads, made at its first use."""
    global _session
    with _session_lock:
        if _session is None:
            from swift_f0 import SwiftF0

            _session = SwiftF0(threads=1, spin=False)
        return _session
