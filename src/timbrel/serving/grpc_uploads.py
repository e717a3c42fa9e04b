"""Recordings that come in parts: whole files or bare PCM, on disk until they are read, and never more than allowed."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from types import TracebackType

from timbrel.audio import Limits
from timbrel.errors import AudioTooLarge, InputError
from timbrel.v1 import timbrel_pb2 as pb

_PCM = {  # bytes of a sample, and WAV's name for its kind
    pb.ENCODING_PCM_S16LE: (2, 1),
    pb.ENCODING_PCM_F32LE: (4, 3),
}
_WAV_BYTES = 44
_MOST_CHANNELS = 1024  # more than are read; what fits into a WAV header


class Uploads:
    """The recordings of one request: ``with Uploads(…) as uploads`` they are there, after it they are gone."""

    def __init__(self, limits: Limits, *, most: int) -> None:
        """At most ``most`` recordings, of ``limits.max_bytes`` together."""
        self._limits = limits
        self._most = most
        self._bytes = 0
        self._formats: list[pb.RecordingFormat] = []

    def __enter__(self) -> Uploads:
        self._folder = Path(tempfile.mkdtemp(prefix="grpc-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, part: pb.RecordingPart) -> None:
        """Raises InputError for a part that does not fit in, AudioTooLarge before it keeps what is too much."""
        if part.HasField("format"):
            if len(self._formats) == self._most:
                allowed = "one recording" if self._most == 1 else f"at most {self._most} recordings"
                raise InputError(f"there is one recording too many: send {allowed} per request")
            self._formats.append(_checked(part.format))
        elif not self._formats:
            raise InputError("the first part of a recording says no format: set it, ENCODING_FILE for a file")
        self._bytes += len(part.data)
        check_size(self._bytes, self._limits)
        with self._path(len(self._formats)).open("ab") as file:
            if part.HasField("format") and part.format.encoding in _PCM:
                file.write(bytes(_WAV_BYTES))
            file.write(part.data)

    def finished(self) -> list[Path]:
        """The recordings as files that ``timbrel.audio.read`` reads. Raises InputError if there is none."""
        if not self._formats:
            raise InputError("there is no recording: send its parts before ending the stream")
        for number, form in enumerate(self._formats, start=1):
            if form.encoding in _PCM:
                with self._path(number).open("r+b") as file:
                    size = file.seek(0, 2) - _WAV_BYTES
                    file.seek(0)
                    file.write(_wav_header(form, size))
        return [self._path(number) for number in range(1, len(self._formats) + 1)]

    def _path(self, number: int) -> Path:
        return self._folder / f"recording-{number}"


def check_size(size: int, limits: Limits) -> None:
    """Raise AudioTooLarge if all recordings of a request together are larger than one may be."""
    if size > limits.max_bytes:
        raise AudioTooLarge(
            f"the upload is larger than {limits.max_bytes / 2**20:g} MiB: send a shorter or a compressed recording"
        )


def _checked(form: pb.RecordingFormat) -> pb.RecordingFormat:
    if form.encoding != pb.ENCODING_FILE:
        if form.encoding not in _PCM:
            raise InputError(f"there is no encoding {form.encoding}: send a file, or PCM as S16LE or F32LE")
        if form.sample_rate <= 0 or not 0 < _channels(form) <= _MOST_CHANNELS:
            raise InputError(
                f"PCM has a sample_rate above 0 and 1 to {_MOST_CHANNELS} channels, not {form.sample_rate} and "
                f"{_channels(form)}"
            )
    return form


def _channels(form: pb.RecordingFormat) -> int:
    return form.channels if form.HasField("channels") else 1


def _wav_header(form: pb.RecordingFormat, size: int) -> bytes:
    """The 44 bytes before ``size`` bytes of samples (Multimedia Programming Interface 1.0, Microsoft 1991)."""
    width, kind = _PCM[form.encoding]
    frame = width * _channels(form)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + size, b"WAVE", b"fmt ", 16,
        kind, _channels(form), form.sample_rate, min(frame * form.sample_rate, 2**32 - 1), frame, 8 * width,
        b"data", size,
    )  # fmt: skip
