"""Degraded and newly rendered notes on the map: values against what is worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.map_notes import map_notes_of

from timbrel.codec.in_process import TorchModels
from timbrel.codec.network import CodecConfig, MagnitudeCodec
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.errors import DataError
from timbrel.notes.render import RenderedNote, RenderJob
from timbrel.notes.soundfonts import general_midi_font
from timbrel.pgesam.vae import Vae, VaeShape
from timbrel.pgesam.vae_training import encode
from timbrel.studies import listening, playing_range, recordings

CPU = torch.device("cpu")
RATE = 24_000


def tone(pitch: float, seconds: float = 4.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((pitch - 69) / 12)
    return (0.5 * sum(np.sin(2 * np.pi * h * hz * time) / h for h in (1, 2, 3)) / 1.8).astype(np.float32)


def loudest_hz(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    return float(np.fft.rfftfreq(len(audio), 1 / RATE)[spectrum.argmax()])


@pytest.fixture(scope="module")
def world():
    """Three instruments (one held out) at five pitches, and a map and a codec that learned nothing."""
    torch.manual_seed(0)
    notes = map_notes_of(
        [(i, i, p, "test" if i == 2 else "train") for i in range(3) for p in (0, 6, 12, 18, 24)]
    )
    vae = Vae(VaeShape(instruments=2, frames=20, channels=(8,) * 5, hidden=(16,) * 4, head_width=8)).eval()
    codec = MagnitudeCodecRuntime(TorchModels(MagnitudeCodec(CodecConfig(hidden=8))))
    embeddings = np.random.default_rng(1).standard_normal((len(notes), 300, 128)).astype(np.float16)
    return listening.Listener.prepared(vae, codec, embeddings, notes, CPU), embeddings, notes


def test_displacement_is_the_distance_to_the_own_centre_in_spreads_of_the_map(world) -> None:
    listener, embeddings, notes = world
    mu = encode(listener.vae, embeddings, notes.row, CPU).mu
    centres = [mu[notes.instrument == i].mean(0) for i in range(3)]
    assert list(listener.centres) == [2]
    np.testing.assert_allclose(listener.centres[2], centres[2], atol=1e-6)
    assert listener.spread == pytest.approx(np.linalg.norm(centres[0] - centres[1]) / 2, rel=1e-5)
    heard = [
        listening.Heard(
            instrument=2, pitch=pitch, audio=np.zeros(0), embedding=embeddings[row].astype(np.float32)
        )
        for row, pitch in ((10, 48), (11, 54), (11, 90))
    ]
    figures = listener.on_the_map(heard)
    distances = np.linalg.norm(mu[[10, 11, 11]] - centres[2], axis=1) / listener.spread
    assert figures["displacement"] == pytest.approx(distances.mean(), rel=1e-4)
    assert figures["own_nearest"] == 1.0
    right = encode(listener.vae, embeddings, np.array([10, 11]), CPU).pitch_logits.argmax(1) == [0, 6]
    assert figures["pitch_accuracy"] == pytest.approx(right.mean())
    assert math.isnan(listener.on_the_map(heard[2:])["pitch_accuracy"])


def test_a_note_is_heard_at_its_length_and_level(world) -> None:
    listener, _, _ = world
    heard = listener.hear(0.01 * tone(60, 1.0), instrument=2, pitch=60)
    assert heard.audio.shape == (96_000,)
    assert np.abs(heard.audio).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)
    assert not heard.audio[24_000:].any()
    assert heard.embedding.shape == (300, 128)


def test_the_codec_is_judged_on_what_it_decodes(world) -> None:
    listener, _, _ = world

    class Perfect:
        def encode(self, audio):
            return audio

        def decode(self, embedding):
            return embedding

    exact = listening.Listener(
        vae=listener.vae, codec=Perfect(), device=CPU, centres=listener.centres, spread=listener.spread
    )
    notes = [
        exact.hear(tone(pitch), instrument=2, pitch=60, f0_midi=f0)
        for pitch, f0 in ((60.0, 60.0), (60.7, 60.0), (62.0, math.nan))
    ]
    figures = exact.through_the_codec(notes, listening.note_f0)
    assert figures["codec_lsd_db"] == pytest.approx(0.0, abs=1e-6)
    assert figures["voiced"] == pytest.approx(2 / 3)
    assert figures["codec_f0_kept"] == 0.5
    assert math.isnan(listening.note_f0(np.zeros(1_000, np.float32)))


def test_each_degradation_does_what_its_level_says() -> None:
    rng = np.random.default_rng(0)
    audio = tone(60, 1.0)
    noisy = recordings.KINDS["noise, SNR in dB"](audio, 20.0, rng)
    assert 10 * np.log10(np.mean(audio**2) / np.mean((noisy - audio) ** 2)) == pytest.approx(20.0, abs=0.1)
    assert loudest_hz(recordings.detuned(audio, 50.0, rng)) == pytest.approx(
        261.63 * 2 ** (50 / 1200), abs=1.0
    )
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0
    echo = recordings.KINDS["room, RT60 in s"](click, 0.4, rng)
    early, late = (np.sum(echo[a:b] ** 2) for a, b in ((100, 2_500), (4_900, 7_300)))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / 0.4, abs=2.0)
    assert np.sum(echo[1:] ** 2) == pytest.approx(10 ** (recordings.ROOM_WET_DB / 10), rel=1e-3)


def test_a_sweep_asks_for_each_note_once_and_a_moved_key_is_found() -> None:
    sweep = playing_range.Sweep(pitches=(48, 60), velocities=(40, 100), at_pitches=(60,))
    assert sweep.pairs() == ((48, 100), (60, 100), (60, 40))

    def probe(pitch: int, midi: float) -> RenderedNote:
        return RenderedNote(pitch=pitch, velocity=100, audio=None, fault="", f0_midi=midi, f0_confidence=1.0)

    assert playing_range.sounding_shift([probe(48, 36.1), probe(60, 47.9), probe(72, math.nan)]) == -12
    assert playing_range.sounding_shift([probe(48, math.nan)]) == 0


def test_held_out_instruments_are_rendered_anew_and_measured_by_pitch_and_velocity(world) -> None:
    listener, _, notes = world
    piano = RenderJob(key="piano", notes=(), font=general_midi_font(), bank=0, program=0)
    sweep = playing_range.Sweep(pitches=(60, 84), velocities=(40,), at_pitches=(60,))
    study = playing_range.playing_range(
        listener, notes, {"instrument 2": piano}, count=5, seed=0, sweep=sweep, workers=1
    )
    figures = {(row.labels["varied"], row.labels["value"]): row.compute() for row in study.rows}
    assert list(figures) == [("pitch", 60), ("pitch", 84), ("velocity", 40)]
    assert all(each["instruments"] == each["notes"] == 1.0 for each in figures.values())
    assert math.isnan(figures["pitch", 84]["pitch_accuracy"])
    assert figures["pitch", 60]["pitch_accuracy"] in (0.0, 1.0)
    assert figures["pitch", 60]["voiced"] == 1.0
    assert figures["pitch", 60]["displacement"] != figures["velocity", 40]["displacement"]
    with pytest.raises(DataError, match="rendered anew"):
        playing_range.playing_range(listener, notes, {}, count=5, seed=0)


def test_recordings_measure_clean_notes_and_every_level(world, tmp_path) -> None:
    listener, _, notes = world

    class Notes:
        def float_audio(self, rows):
            return np.stack([tone(48 + int(notes.pitch[row])) for row in rows])

    levels = {"noise, SNR in dB": (20.0,), "room, RT60 in s": (0.2,), "detune, cents": (-50.0, 50.0)}
    study = recordings.recordings(listener, Notes(), notes, count=2, seed=0, levels=levels)
    assert [tuple(row.labels.values()) for row in study.rows] == [
        ("clean", "–"),
        ("noise, SNR in dB", 20.0),
        ("room, RT60 in s", 0.2),
        ("detune, cents", -50.0),
        ("detune, cents", 50.0),
    ]
    clean, noisy = study.rows[0].compute(), study.rows[1].compute()
    assert clean["notes"] == noisy["notes"] == 2.0
    assert clean["displacement"] != noisy["displacement"]
    assert study.rows[1].compute() == noisy
