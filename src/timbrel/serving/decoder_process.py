"""The process that decodes recordings for the service, one after the other: started by ``timbrel.serving.decoding``.

    stdin    {"bytes": n, "limits": {…}, "cpu_seconds": s}\\n   n bytes
    stdout   {"ready": true}\\n   once; then, for each recording,
             {"sample_rate": r, "samples": n}\\n   n float32, or   {"error": "AudioError", "message": "…"}\\n

It opens no file and no connection: before the first recording it gives up the right to. What one recording may take of
memory and of the processor is bounded; the kernel ends the process that takes more. It ends when its input ends.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import signal
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from timbrel import audio
from timbrel.audio import Limits
from timbrel.errors import AudioError, AudioTooLarge, TimbrelError

_MIB = 1 << 20
# Beyond what the samples need: the decoders' tables, the allocator's arenas.
_SPARE_BYTES = 128 * _MIB


def main() -> None:
    answers = _private_output()
    # Ctrl-C at a terminal reaches every process; what is being decoded is still answered.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    questions = os.fdopen(0, "rb")
    _load_everything()
    base = _virtual_bytes()
    _lock_in()
    _say(answers, {"ready": True})
    while line := questions.readline():
        asked = json.loads(line)
        _answer(
            answers, questions.read(asked["bytes"]), Limits(**asked["limits"]), asked["cpu_seconds"], base
        )


def memory_bytes(limits: Limits) -> int:
    """What decoding one recording may take: the file, the mixed samples some times over, a second of all channels."""
    samples = 4 * round(limits.max_seconds * limits.max_sample_rate)
    block = 4 * limits.max_sample_rate * limits.max_channels
    return 2 * limits.max_bytes + 5 * samples + 4 * block + _SPARE_BYTES


def _answer(answers: BinaryIO, data: bytes, limits: Limits, cpu_seconds: float, base: int) -> None:
    _bound(resource.RLIMIT_AS, base + memory_bytes(limits))
    used = resource.getrusage(resource.RUSAGE_SELF)
    _bound(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + cpu_seconds))
    try:
        decoded = audio.read(data, limits=limits)
    except TimbrelError as error:
        _say(answers, {"error": type(error).__name__, "message": error.message})
    except MemoryError:
        message = "the audio takes too much memory to decode: send a shorter clip with fewer channels"
        _say(answers, {"error": AudioTooLarge.__name__, "message": message})
    except Exception:  # whatever a decoder's binding makes of a file: it is the file
        message = "not readable as audio: send WAV, FLAC, OGG, MP3 or AIFF"
        _say(answers, {"error": AudioError.__name__, "message": message})
    else:
        samples = np.ascontiguousarray(decoded.samples, dtype="<f4")
        head = {"sample_rate": decoded.sample_rate, "samples": len(samples)}
        answers.write(json.dumps(head).encode() + b"\n")
        answers.write(samples.data)
        answers.flush()


def _private_output() -> BinaryIO:
    """Standard output for ourselves: what decoders print about damaged files goes nowhere."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return answers


def _load_everything() -> None:
    """Have every module and table loaded that decoding needs, while files can still be opened."""
    tone = np.zeros(24_000, dtype=np.float32)
    for container in ("WAV", "FLAC", "OGG", "MP3"):
        file = io.BytesIO()
        soundfile.write(file, tone, 24_000, format=container)
        for data in (file.getvalue(), file.getvalue()[:40]):
            try:
                audio.read(data)
            except AudioError:
                continue


def _lock_in() -> None:
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))


def _bound(kind: int, value: int) -> None:
    """The soft limit; the hard one stays, so that the next recording can be given its own."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _virtual_bytes() -> int:
    """Address space in use now: the interpreter and the libraries."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _say(answers: BinaryIO, content: dict[str, object]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
