"""What the map encoder hears of a recording: two seconds of one note, as the notes that it was trained on.

Training notes begin at their onset, peak at -1 dBFS, are held for three seconds, are clean, and lie between MIDI 48
and 72. A recording need not:

    onset ─► level ─► into the map's pitches ─► spectra ─► noise before the note ─► let go early: held on

- *Noise* that was there before the note, or is after it, is subtracted from it (spectral subtraction, Boll 1979).
- *A short note*, cut off or released within two seconds, is held on: its last held spectra are repeated to and fro,
  falling or swelling on at the rate at which it fell. A note that dies away by itself stays as it is.
- *A pitch between the keys*, or *below the map*, is tuned to the nearest key of the map by playing the recording
  faster or slower. *One above the map* is lowered by moving the partials down under the spectral envelope they had.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import soxr
from scipy.ndimage import gaussian_filter1d

from timbrel.codec import spectrum
from timbrel.codec.spectrum import Spectra
from timbrel.encoders import frontend
from timbrel.library.vectors import MAP_FRAMES, MAP_SAMPLES, NOTE_PEAK

NOTE_SAMPLES = 96_000  # of a training note: its peak may come late

# Noise is measured on at least this much of the recording, before the note or, where it lies this far below it, after.
_NOISE_SAMPLES = 2_400
_NOISE_BELOW_DB = 40.0
_NOISE_GUARD = 480  # the onset is known to 5 ms, and a frame looks around itself

# What F0 can be measured to: a recording nearer to a key of the map is not tuned.
_IN_TUNE = 0.1  # semitones

# A note falls this fast (dB per frame, 30 dB/s) once it is let go; over _FALL_FRAMES, so that a beat is no fall.
_LET_GO = 30.0 / spectrum.FRAME_RATE
_FALL_FRAMES = 5
_AUDIBLE_DB = 40.0
_SHORTEST_HELD = 6  # frames, 80 ms: what falls sooner dies away by itself, like a mallet
_EDGE_FRAMES = 4  # the last frames before an end look beyond it
_TREND_FRAMES = 12  # 160 ms tell how the note goes on

_ENVELOPE_BINS = 40  # standard deviation, 470 Hz: wider than the partials lie apart where it is used


class Heard(NamedTuple):
    """``spectra``: magnitudes [150, 1025], and phases of the first frames, as many as are the recording's own;
    ``transposed``: semitones from the recording to it.
    """

    spectra: Spectra
    transposed: float


def hear(samples: np.ndarray, *, midi: float | None, low: int, high: int) -> Heard:
    """The note at the onset of a recording, as the map knows notes.

    Args:
        samples: mono float32 [n] at 24 kHz, not silent.
        midi: its pitch, None where it has none (it is then taken as it is).
        low, high: the map's lowest and highest MIDI pitch.
    """
    shift = 0.0 if midi is None else min(max(round(midi), low), high) - midi
    if abs(shift) <= _IN_TUNE:
        shift = 0.0
    start = frontend.onset(samples)
    note = samples[start:]
    peak = float(np.abs(note[:NOTE_SAMPLES]).max())
    gain = np.float32(NOTE_PEAK / peak) if peak > 0 else np.float32(1.0)
    noise = noise_of(samples, start) * gain
    tuned = shift if shift > -1.0 else 0.0
    if tuned:
        faster = spectrum.SAMPLE_RATE * 2.0 ** (tuned / 12.0)
        note = soxr.resample(note, faster, spectrum.SAMPLE_RATE)
        noise = soxr.resample(noise, faster, spectrum.SAMPLE_RATE) if len(noise) else noise
    spectra = spectrum.stft(note[:MAP_SAMPLES] * gain)
    frames, phases = spectrum.to_decibels(np.abs(spectra)), np.angle(spectra)
    if len(noise) >= _NOISE_SAMPLES:
        frames = subtract_noise(frames, spectrum.log_magnitude(noise))
    held = hold(frames, MAP_FRAMES)
    if tuned != shift:
        return Heard(Spectra(lower(held, -shift), None), shift)
    # What is held on ends in frames that the recording does not have; up to there its phases are known.
    length = min(len(frames), MAP_FRAMES)
    same = (held[:length] == frames[:length]).all(axis=1)
    return Heard(Spectra(held, phases[: length if same.all() else int(same.argmin())]), shift)


def noise_of(samples: np.ndarray, onset: int) -> np.ndarray:
    """What of a recording is noise alone: what came before the note, else its last 0.2 s; perhaps nothing."""
    before = samples[: max(0, onset - _NOISE_GUARD)]
    if len(before) >= _NOISE_SAMPLES:
        return before
    end = samples[max(onset, len(samples) - 2 * _NOISE_SAMPLES) :]
    quiet = frontend.loudest_rms(end) <= 10.0 ** (-_NOISE_BELOW_DB / 20.0) * frontend.loudest_rms(samples)
    return end if quiet else before


def subtract_noise(note: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """``note`` [t, bins] dB less the mean power of ``noise`` [u, bins] dB, never below the floor; float32 [t, bins]."""
    power = 10.0 ** (note.astype(np.float64) / 10.0)
    floor = 10.0 ** (spectrum.FLOOR_DB / 10.0)
    left = power - ((10.0 ** (noise.astype(np.float64) / 10.0)).mean(axis=0) - floor)
    return (10.0 * np.log10(np.maximum(left, floor))).astype(np.float32)


def hold(note: np.ndarray, frames: int) -> np.ndarray:
    """``note`` [t, bins] dB as if its key had been held for ``frames`` frames: float32 [frames, bins]."""
    level = 10.0 * np.log10(np.maximum((10.0 ** (note.astype(np.float64) / 10.0)).sum(axis=1), 1e-12))
    loudest = int(level.argmax()) if len(level) else 0
    let_go = _let_go(level, loudest)
    if let_go - loudest < _SHORTEST_HELD:
        # It dies away by itself, or is too short to tell.
        silence = np.full((max(0, frames - len(note)), note.shape[1]), spectrum.FLOOR_DB, dtype=np.float32)
        return np.concatenate([note, silence])[:frames]
    held = let_go - _EDGE_FRAMES
    if held >= frames:
        return note[:frames]
    count = min(_TREND_FRAMES, held - loudest)
    tail = np.arange(held - count, held)
    slope = min(0.0, float(np.polyfit(tail, level[tail], 1)[0]))
    # To and fro over the tail: …, h-2, h-1 | h-2, h-3, …, h-c, h-c+1, …
    there_and_back = np.concatenate([tail[-2::-1], tail[1:]])
    at = np.arange(held, frames)
    source = np.resize(there_and_back, len(at))
    on = note[source] + (slope * (at - source)).astype(np.float32)[:, None]
    return np.concatenate([note[:held], np.maximum(on, np.float32(spectrum.FLOOR_DB))])


def _let_go(level: np.ndarray, loudest: int) -> int:
    """The frame at which the key was let go, or the recording ends: where a fall begins that ends in silence."""
    audible = np.flatnonzero(level > level[loudest] - _AUDIBLE_DB) if len(level) else np.array([0])
    frame = int(audible[-1])
    while (
        frame - _FALL_FRAMES > loudest and level[frame - _FALL_FRAMES] - level[frame] > _LET_GO * _FALL_FRAMES
    ):
        frame -= 1
    # Nothing but the recording's end: every frame counts.
    return len(level) if frame == len(level) - 1 else frame


def lower(note: np.ndarray, semitones: float) -> np.ndarray:
    """``note`` [t, bins] dB with its partials ``semitones`` lower, under the envelope it had: float32 [t, bins]."""
    bins = np.arange(note.shape[1], dtype=np.float64)
    source = bins * 2.0 ** (semitones / 12.0)
    below = np.minimum(source.astype(np.int64), note.shape[1] - 2)
    weight = np.clip(source - below, 0.0, 1.0).astype(np.float32)

    def moved(values: np.ndarray) -> np.ndarray:
        return values[:, below] * (1.0 - weight) + values[:, below + 1] * weight

    envelope = gaussian_filter1d(note, _ENVELOPE_BINS, axis=1, mode="nearest")
    partials = moved(note)
    partials[:, source > note.shape[1] - 1] = spectrum.FLOOR_DB
    return np.clip(partials - moved(envelope) + envelope, spectrum.FLOOR_DB, 6.0).astype(np.float32)
