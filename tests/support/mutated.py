"""Real recordings, damaged: what a fuzzer uploads."""

from __future__ import annotations

import random
from collections.abc import Sequence

from support.recordings import encoded, note

# Where headers keep their numbers, and what makes readers trip.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 64
FORMATS = (
    ("WAV", "PCM_16", 24_000, 1),
    ("WAV", "FLOAT", 44_100, 2),
    ("WAV", "IMA_ADPCM", 22_050, 1),
    ("FLAC", "PCM_16", 24_000, 1),
    ("FLAC", "PCM_24", 48_000, 2),
    ("OGG", "VORBIS", 44_100, 1),
    ("OGG", "OPUS", 48_000, 2),
    ("MP3", "MPEG_LAYER_III", 24_000, 1),
    ("MP3", "MPEG_LAYER_III", 44_100, 2),
    ("AIFF", "PCM_16", 24_000, 1),
    ("CAF", "PCM_16", 24_000, 1),
    ("W64", "PCM_16", 24_000, 1),
    ("AU", "ULAW", 8_000, 1),
)


def whole_files() -> list[bytes]:
    """A short note in every container that is read."""
    return [
        encoded(note(rate, seconds=0.4, channels=channels), rate, container, subtype)
        for container, subtype, rate, channels in FORMATS
    ]


def mutated(files: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the files with one to six things done to it; never more than twice as long as the longest and a bit."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(len(data), _HEADER_BYTES) if rng.random() < 0.5 else len(data)) if data else 0
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(_EDGES) & ((1 << 8 * width) - 1)
            data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 2:
            data[at : at + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 2000)]
        elif kind == 5:
            other = rng.choice(files)
            data[at:] = other[rng.randrange(len(other)) :]
        elif len(data) < 2 * max(map(len, files)):
            piece = data[at : at + rng.randrange(1, 2000)]
            data[at:at] = piece * rng.randrange(1, 4)
    return bytes(data)
