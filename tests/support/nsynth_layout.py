"""Folders in NSynth's published layout, of tones that a seed draws."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def write_part(
    folder: Path,
    part: str,
    instruments: Mapping[str, Sequence[int]],
    velocities: Sequence[int] = (100,),
    *,
    drawn: bool = False,
) -> None:
    """``instruments``: instrument_str -> pitches. ``drawn``: every instrument has a timbre of its own."""
    audio = folder / f"nsynth-{part}" / "audio"
    audio.mkdir(parents=True)
    facts = {}
    for number, (instrument, pitches) in enumerate(instruments.items()):
        family, source, _ = instrument.rsplit("_", 2)
        slope = 1.0 + (2.0 * np.random.default_rng(number).random() if drawn else 0.0)
        for pitch in pitches:
            for velocity in velocities:
                name = f"{instrument}-{pitch:03d}-{velocity:03d}"
                facts[name] = {
                    "note": 1000 * number + pitch,
                    "note_str": name,
                    "instrument": number,
                    "instrument_str": instrument,
                    "instrument_family": 0,
                    "instrument_family_str": family,
                    "instrument_source": 0,
                    "instrument_source_str": source,
                    "pitch": pitch,
                    "velocity": velocity,
                    "sample_rate": RATE,
                    "qualities": [0] * 10,
                    "qualities_str": [],
                }
                soundfile.write(audio / f"{name}.wav", tone(pitch, slope), RATE, subtype="PCM_16")
    (audio.parent / "examples.json").write_text(json.dumps(facts))


def tone(pitch: int, slope: float = 1.0) -> np.ndarray:
    """Four seconds, held for three; partial k has the amplitude k ** -slope."""
    time = np.arange(4 * RATE) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    partials = sum(np.sin(2 * np.pi * frequency * k * time) / k**slope for k in range(1, 6))
    return 0.2 * partials * (time < 3)


def archive_of(folder: Path, part: str) -> bytes:
    """``nsynth-<part>`` of the folder as it is published: a gzipped tar."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder / f"nsynth-{part}", f"nsynth-{part}")
    return content.getvalue()
