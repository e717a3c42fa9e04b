"""Small files that would decode to very much."""

from __future__ import annotations

import io

import numpy as np
import soundfile

RATE = 8_000
SECONDS = 3_600
_TOTAL = slice(18, 26)  # of a FLAC file: rate, channels, bits; the low 36 bits are the number of samples


def flac_bomb(*, promised_seconds: int | None = None) -> bytes:
    """An hour of silence in some 100 KB; its header may promise another length (0: unknown)."""
    file = io.BytesIO()
    silence = np.zeros(60 * RATE, dtype=np.int16)
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16", format="FLAC") as out:
        for _ in range(SECONDS // 60):
            out.write(silence)
    data = bytearray(file.getvalue())
    if promised_seconds is not None:
        fields = int.from_bytes(data[_TOTAL], "big") >> 36 << 36
        data[_TOTAL] = (fields | promised_seconds * RATE).to_bytes(8, "big")
    return bytes(data)


def mp3_bomb(*, honest: bool) -> bytes:
    """An hour of silence; its header says so, or promises the 10 seconds that are repeated."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(10 * RATE), RATE, format="MP3", subtype="MPEG_LAYER_III")
    once = file.getvalue()
    if not honest:
        return once * (SECONDS // 10)
    # Without the first frame, which is the header that tells a length, players count the frames.
    body = once[once.index(once[:2], 2) :]
    return body * (SECONDS // 10)
