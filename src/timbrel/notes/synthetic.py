"""Plain synthetic tones, to fill what soundfonts and FM leave open of the space of spectra.

An instrument is one to three voices (octaves, fifths or thirds apart, detuned, doubled in unison), each either a
band-limited wave (saw, pulse, formants, random harmonics, a low pass that opens or closes) or stretched partials of a
bar or bell; under an envelope, with some noise. Everything is drawn from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from timbrel.notes.noteset import HELD_SECONDS, NOTE_SAMPLES, SAMPLE_RATE

TABLE = 8_192
INHARMONIC_PARTIALS = 40
TOP_HZ = 11_500.0
# Where further voices lie: octaves most often, then what patches tune their second oscillator to.
TRANSPOSED = (-24, -12, -12, -5, 0, 3, 4, 5, 7, 7, 12, 12, 16, 19, 24)
Audio = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """``transpose`` in semitones, ``level`` in dB, ``detunes`` in cents: one copy each. ``stretch`` > 0: inharmonic.

    ``bright``/``dark``: spectra of the wave's start and end in dB by harmonic number [512]; ``fade`` in seconds;
    ``cutoffs`` in Hz belong to them.
    """

    transpose: float
    level: float
    detunes: tuple[float, ...]
    stretch: float
    harmonics: npt.NDArray[np.float64]
    cutoffs: tuple[float, float]
    resonance: float
    slope: float
    fade: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """One instrument. Times in seconds; ``sustain`` and ``noise`` in dB; ``vibrato``: (Hz, cents)."""

    voices: tuple[Voice, ...]
    attack: float
    decay: float
    sustain: float
    release: float
    noise: float
    noise_slope: float
    vibrato: tuple[float, float]
    seed: int


def draw_tone(seed: int) -> Tone:
    """The instrument of ``seed``."""
    rng = np.random.default_rng([seed, 1])
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))
    return Tone(
        voices=tuple(_draw_voice(rng, first=index == 0) for index in range(count)),
        attack=float(np.exp(rng.uniform(np.log(0.002), np.log(0.4)))),
        decay=float(np.exp(rng.uniform(np.log(0.2), np.log(4.0)))),
        sustain=float(rng.choice([-60.0, rng.uniform(-18.0, 0.0)], p=[0.35, 0.65])),
        release=float(np.exp(rng.uniform(np.log(0.05), np.log(1.0)))),
        noise=float(rng.uniform(-90.0, -30.0)),
        noise_slope=float(rng.uniform(-1.5, 0.5)),
        vibrato=(
            float(rng.uniform(3.0, 7.0)),
            float(rng.choice([0.0, rng.uniform(2.0, 40.0)], p=[0.7, 0.3])),
        ),
        seed=seed,
    )


def play(tone: Tone, midi: float) -> Audio:
    """One note of ``tone`` held for 3 s: float32 [96000] at 24 kHz, its peak anywhere."""
    rng = np.random.default_rng([tone.seed, 2, round(midi * 100)])
    time = np.arange(NOTE_SAMPLES) / SAMPLE_RATE
    rate, depth = tone.vibrato
    # Vibrato of so many cents, as the integral of the frequency's ratio: a phase in seconds.
    wander = np.cumsum(2.0 ** (depth / 1200.0 * np.sin(2.0 * np.pi * rate * time))) / SAMPLE_RATE
    sound = np.zeros(NOTE_SAMPLES)
    for voice in tone.voices:
        for cents in voice.detunes:
            f0 = 440.0 * 2.0 ** ((midi - 69.0 + voice.transpose + cents / 100.0) / 12.0)
            one = _stretched(voice, f0, wander, rng) if voice.stretch else _wave(voice, f0, wander, time, rng)
            sound += 10.0 ** (voice.level / 20.0) / np.sqrt(len(voice.detunes)) * one
    sound /= np.abs(sound).max() + 1e-9
    sound += 10.0 ** (tone.noise / 20.0) * _noise(tone.noise_slope, rng)
    return (sound * _envelope(tone, time)).astype(np.float32)


def _draw_voice(rng: np.random.Generator, *, first: bool) -> Voice:
    number = np.arange(1, 513, dtype=np.float64)
    harmonics = -20.0 * rng.uniform(0.0, 2.5) * np.log10(number)
    if rng.random() < 0.5:  # a pulse of this width: saw at 0, square at 1/2
        width = rng.choice([0.5, rng.uniform(0.02, 0.5)])
        harmonics += 20.0 * np.log10(np.abs(np.sin(np.pi * number * width)) + 10.0 ** rng.uniform(-4.0, -1.0))
    harmonics += rng.normal(0.0, rng.choice([0.0, rng.uniform(1.0, 15.0)]), len(number))
    if rng.random() < 0.25:  # few partials, as on an organ
        harmonics[rng.random(len(number)) < rng.uniform(0.3, 0.9)] -= rng.uniform(20.0, 90.0)
    unison = int(rng.choice([1, 2, 3, 5], p=[0.6, 0.2, 0.1, 0.1]))
    spread = float(rng.uniform(0.5, 25.0))
    cutoffs = np.exp(rng.uniform(np.log(150.0), np.log(12_000.0), 2))
    return Voice(
        transpose=0.0 if first else float(rng.choice(TRANSPOSED)),
        level=0.0 if first else float(rng.uniform(-45.0, 0.0)),
        detunes=tuple((spread * rng.uniform(-1.0, 1.0, unison)).tolist()),
        stretch=float(rng.choice([0.0, np.exp(rng.uniform(np.log(1e-5), np.log(3e-2)))], p=[0.85, 0.15])),
        harmonics=harmonics,
        cutoffs=(float(cutoffs[0]), float(cutoffs[1])),
        resonance=float(rng.choice([0.0, rng.uniform(3.0, 24.0)])),
        slope=float(rng.choice([6.0, 12.0, 24.0, 48.0])),
        fade=float(np.exp(rng.uniform(np.log(0.05), np.log(2.0)))),
    )


def _levels(voice: Voice, hertz: npt.NDArray[np.float64], cutoff: float) -> npt.NDArray[np.float64]:
    """Amplitudes of partials at ``hertz`` [n <= 512] behind a low pass at ``cutoff``; none above the band."""
    octaves = np.log2(hertz / cutoff)
    decibels = voice.harmonics[: len(hertz)] - voice.slope * np.logaddexp2(0.0, 4.0 * octaves) / 4.0
    decibels += voice.resonance * np.exp(-0.5 * (octaves / 0.15) ** 2)
    return np.where(hertz < TOP_HZ, 10.0 ** (decibels / 20.0), 0.0)


def _wave(
    voice: Voice,
    f0: float,
    wander: npt.NDArray[np.float64],
    time: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """A wave table read at ``f0``, fading from the one cutoff's table to the other's."""
    count = max(1, min(512, int(TOP_HZ / f0)))
    hertz = f0 * np.arange(1, count + 1)
    turns = np.exp(2j * np.pi * rng.random(count))
    spectra = np.zeros((2, TABLE // 2 + 1), dtype=np.complex128)
    for spectrum, cutoff in zip(spectra, voice.cutoffs, strict=True):
        spectrum[1 : count + 1] = _levels(voice, hertz, cutoff) * turns
    tables = np.fft.irfft(spectra, n=TABLE) * TABLE / 2.0
    place = np.remainder(f0 * wander + rng.random(), 1.0) * TABLE
    whole = place.astype(np.int64)
    part = place - whole
    whole %= TABLE
    after = (whole + 1) % TABLE
    start, end = (table[whole] * (1.0 - part) + table[after] * part for table in tables)
    share = np.exp(-time / voice.fade)
    return start * share + end * (1.0 - share)


def _stretched(
    voice: Voice, f0: float, wander: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Partials of a stiff string, f0 k sqrt(1 + B k^2) (Fletcher 1964): B up to a bar's."""
    number = np.arange(1, INHARMONIC_PARTIALS + 1)
    hertz = f0 * number * np.sqrt(1.0 + voice.stretch * number**2)
    levels = _levels(voice, hertz, voice.cutoffs[0])
    heard = levels > 1e-5 * levels.max(initial=0.0)
    sound = np.zeros(len(wander))
    for frequency, level, start in zip(
        hertz[heard], levels[heard], rng.random(int(heard.sum())), strict=True
    ):
        sound += level * np.sin(2.0 * np.pi * (frequency * wander + start))
    return sound


def _noise(slope: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise whose amplitude spectrum goes as frequency ** ``slope``, of unit peak."""
    spectrum = np.fft.rfft(rng.standard_normal(NOTE_SAMPLES))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** slope
    spectrum[0] = 0.0
    sound = np.fft.irfft(spectrum, n=NOTE_SAMPLES)
    return np.asarray(sound / np.abs(sound).max())


def _envelope(tone: Tone, time: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sustain = 10.0 ** (tone.sustain / 20.0)
    level = np.minimum(1.0, time / tone.attack)
    level *= sustain + (1.0 - sustain) * np.exp(-np.maximum(0.0, time - tone.attack) / tone.decay)
    return np.asarray(level * np.exp(-np.maximum(0.0, time - HELD_SECONDS) / (tone.release / 5.0)))
