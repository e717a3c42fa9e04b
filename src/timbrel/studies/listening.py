"""What a trained map and codec make of sound that they were not trained on: shared by ``range`` and ``recordings``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from timbrel.codec.runtime import Codec
from timbrel.codec.spectrum import log_magnitude, log_spectral_distance
from timbrel.notes.noteset import NOTE_SAMPLES, quantise
from timbrel.notes.render import measure_f0
from timbrel.pgesam.dataset import LOWEST_PITCH, PITCHES, MapNotes
from timbrel.pgesam.vae import Vae
from timbrel.pgesam.vae_training import encode
from timbrel.studies.maps import HELD_OUT, spread_of
from timbrel.studies.table import Figures

KEPT_SEMITONES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One note: ``embedding`` [frames, 128] of ``audio`` (float32 [96000], peak at -1 dBFS), filed under ``instrument``
    (a number of the map's) and MIDI ``pitch``; ``f0_midi`` is what sounds before the codec, nan when unvoiced."""

    instrument: int
    pitch: int
    audio: np.ndarray
    embedding: np.ndarray
    f0_midi: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A frozen map and codec, and where the held-out instruments lie: their centres, from their ordinary notes."""

    vae: Vae
    codec: Codec
    device: torch.device
    centres: dict[int, np.ndarray]
    spread: float

    @classmethod
    def prepared(
        cls, vae: Vae, codec: Codec, embeddings: np.ndarray, notes: MapNotes, device: torch.device
    ) -> Listener:
        """The map's spread is that of the training instruments' centres."""
        mu = encode(vae, embeddings, notes.row, device).mu
        every = {int(i): mu[notes.instrument == i].mean(0) for i in np.unique(notes.instrument)}
        trained = np.unique(notes.instrument[notes.split == "train"])
        heldout = np.unique(notes.instrument[np.isin(notes.split, HELD_OUT)])
        return cls(
            vae=vae,
            codec=codec,
            device=device,
            centres={int(i): every[int(i)] for i in heldout},
            spread=spread_of(np.stack([every[int(i)] for i in trained])),
        )

    def hear(self, audio: np.ndarray, *, instrument: int, pitch: int, f0_midi: float = math.nan) -> Heard:
        """``audio`` float [samples] at 24 kHz: brought to a note's length and level, and through the encoder."""
        fitted = np.zeros(NOTE_SAMPLES, dtype=np.float64)
        fitted[: len(audio)] = audio[:NOTE_SAMPLES]
        level = quantise(fitted).astype(np.float32) / np.float32(32768.0)
        return Heard(
            instrument=instrument,
            pitch=pitch,
            audio=level,
            embedding=self.codec.encode(level),
            f0_midi=f0_midi,
        )

    def on_the_map(self, heard: Sequence[Heard]) -> Figures:
        """Means over notes.

        ``displacement``: distance of μ from the instrument's own centre, relative to the map's spread.
        ``own_nearest``: share that lies nearer to its own centre than to any other held-out instrument's.
        ``pitch_accuracy``: of the VAE's pitch head, among notes within its 25 pitches (nan where there is none).
        """
        encoded = encode(
            self.vae, np.stack([note.embedding for note in heard]), np.arange(len(heard)), self.device
        )
        names = list(self.centres)
        distances = np.linalg.norm(
            encoded.mu[:, None, :] - np.stack([self.centres[name] for name in names])[None], axis=2
        )
        own = np.array([names.index(note.instrument) for note in heard])
        wanted = np.array([note.pitch - LOWEST_PITCH for note in heard])
        inside = (wanted >= 0) & (wanted < PITCHES)
        right = encoded.pitch_logits.argmax(1) == wanted
        return {
            "notes": float(len(heard)),
            "displacement": float(distances[np.arange(len(heard)), own].mean() / self.spread),
            "own_nearest": float((distances.argmin(1) == own).mean()),
            "pitch_accuracy": float(right[inside].mean()) if inside.any() else math.nan,
        }

    def through_the_codec(
        self, heard: Sequence[Heard], midi: Callable[[np.ndarray], float] | None = None
    ) -> Figures:
        """``codec_lsd_db``: mean log-spectral distance of the decoded note to the one that went in.

        With ``midi(audio)`` (what measures F0, nan when unvoiced) also ``codec_f0_kept``: the share of the voiced notes
        whose decoded F0 is within 50 cents of their own; and ``voiced``, the share of notes that are.
        """
        distances, kept = [], []
        for note in heard:
            decoded = self.codec.decode(note.embedding)
            distances.append(log_spectral_distance(log_magnitude(note.audio), log_magnitude(decoded)))
            if midi is not None and math.isfinite(note.f0_midi):
                kept.append(abs(midi(decoded) - note.f0_midi) <= KEPT_SEMITONES)
        figures: Figures = {"codec_lsd_db": float(np.mean(distances)) if distances else math.nan}
        if midi is not None:
            figures["voiced"] = len(kept) / len(heard) if heard else math.nan
            figures["codec_f0_kept"] = float(np.mean(kept)) if kept else math.nan
        return figures


def note_f0(audio: np.ndarray) -> float:
    """MIDI pitch of a note (float [≤ 96000]) as the notes stage measures it; nan when unvoiced or silent."""
    if not np.abs(audio).max(initial=0.0) > 0.0:
        return math.nan
    return measure_f0(quantise(np.pad(audio, (0, NOTE_SAMPLES - len(audio)))))[0]
