"""The audio edge: bytes or a file in, mono float samples out, and back to WAV.

    bytes ─► size ─► header: format, rate, channels, duration ─► decode, block by block ─► mono ─► Audio

Every check comes before the work it saves, and decoding stops at the limit whatever the header promises.
Whatever is not readable becomes an AudioError or AudioTooLarge that says what to do; no other error leaves
``read``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from timbrel.errors import AudioError, AudioTooLarge, InputError

SAMPLE_RATE = 24_000
"""The rate everything inside works at, in Hz."""

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
_MIB = 1 << 20
# Two channels that cancel each other (one is the other, inverted) leave less than this share of their energy.
_CANCELLED = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ``read`` accepts. Lengths are inclusive."""

    max_bytes: int = 64 * _MIB
    max_seconds: float = 60.0
    max_channels: int = 64
    min_sample_rate: int = 8_000
    max_sample_rate: int = 192_000


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Mono sound: ``samples`` float32 [n], finite, within -1 … 1 when ``read``; ``sample_rate`` in Hz."""

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def read(source: bytes | Path, *, limits: Limits | None = None) -> Audio:
    """Decode one recording at its own rate, its channels mixed to one.

    Reads what libsndfile does of FORMATS, integer and float. Float audio beyond full scale is scaled to it.
    Raises AudioTooLarge for too many bytes or seconds, and AudioError for whatever else is wrong with it.
    """
    limits = limits or Limits()
    data = bytes_of(source, limits)
    if not data:
        raise AudioError("the audio is empty (0 bytes): send a WAV, FLAC, OGG, MP3 or AIFF file")
    try:
        with soundfile.SoundFile(_Source(data)) as file:
            _check_header(file, limits)
            samples = _decode(file, round(limits.max_seconds * file.samplerate), limits)
            sample_rate = file.samplerate
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise AudioError(
            f"not readable as audio ({_one_line(error)}): send WAV, FLAC, OGG, MP3 or AIFF"
        ) from None
    if not len(samples):
        raise AudioError("the audio has a header but no samples: export it again")
    if not np.isfinite(samples).all():
        raise AudioError("the audio holds NaN or infinite samples: export it again")
    peak = float(np.abs(samples).max())
    return Audio(samples / np.float32(peak) if peak > 1.0 else samples, sample_rate)


def read_all(
    sources: Sequence[bytes | Path], *, limits: Limits | None = None, by: Callable[..., Audio] = read
) -> list[Audio]:
    """Each as ``by`` gives it, which takes what ``read`` takes; of several, the one that cannot be read is named by
    its number.
    """
    recordings = []
    for number, source in enumerate(sources, start=1):
        try:
            recordings.append(by(source, limits=limits))
        except InputError as error:
            if len(sources) == 1:
                raise
            raise type(error)(f"recording {number}: {error.message}") from None
    return recordings


def resample(audio: Audio, sample_rate: int = SAMPLE_RATE) -> Audio:
    """The same sound at another rate, in soxr's high quality."""
    if audio.sample_rate == sample_rate:
        return audio
    return Audio(soxr.resample(audio.samples, audio.sample_rate, sample_rate), sample_rate)


def wav_bytes(audio: Audio) -> bytes:
    """A 16-bit WAV file. What lies beyond full scale is clipped."""
    return _wav(np.clip(audio.samples, -1.0, 1.0), audio.sample_rate, "PCM_16")


def float_wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """A 32-bit float WAV file of ``samples`` [n] or [n, channels]: nothing is rounded or clipped."""
    return _wav(np.asarray(samples, dtype=np.float32), sample_rate, "FLOAT")


def _wav(samples: np.ndarray, sample_rate: int, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, sample_rate, format="WAV", subtype=subtype)
    return out.getvalue()


class _Source(io.BytesIO):
    """Bytes for libsndfile, whose callbacks must not raise: a damaged header may send it before the beginning."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def bytes_of(source: bytes | Path, limits: Limits) -> bytes:
    """The recording's bytes, its size checked first. Raises AudioTooLarge, AudioError (no such file)."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        try:
            size = source.stat().st_size
        except OSError as error:
            raise AudioError(f"cannot open {source}: {error.strerror or error}") from None
    if size > limits.max_bytes:
        raise AudioTooLarge(
            f"the audio has {size / _MIB:.1f} MiB, at most {limits.max_bytes / _MIB:.0f} are read: "
            "send a shorter clip"
        )
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise AudioError(f"cannot read {source}: {error.strerror or error}") from None


def _check_header(file: soundfile.SoundFile, limits: Limits) -> None:
    if file.format not in FORMATS:
        raise AudioError(f"{file.format} files are not read: send WAV, FLAC, OGG, MP3 or AIFF")
    rate = file.samplerate
    if not limits.min_sample_rate <= rate <= limits.max_sample_rate:
        wanted = f"{limits.min_sample_rate} to {limits.max_sample_rate} Hz"
        raise AudioError(f"the sample rate is {rate} Hz: resample it to {wanted}")
    if file.channels > limits.max_channels:
        raise AudioError(
            f"the audio has {file.channels} channels, at most {limits.max_channels} are mixed: send stereo"
        )
    if file.frames > limits.max_seconds * rate:
        raise _too_long(file.frames / rate, limits)


def _decode(file: soundfile.SoundFile, max_frames: int, limits: Limits) -> np.ndarray:
    """Read block by block, at most ``max_frames``; mix to mono float32 [frames]."""
    mixed: list[np.ndarray] = []
    first: list[np.ndarray] = []
    mixed_energy = channels_energy = 0.0
    frames = 0
    while True:
        block = file.read(file.samplerate, dtype="float32", always_2d=True)
        if not len(block):
            break
        frames += len(block)
        if frames > max_frames:
            raise _too_long(frames / file.samplerate, limits, at_least=True)
        # Huge float samples may overflow here; the check for finite samples comes after, and refuses them.
        with np.errstate(over="ignore", invalid="ignore"):
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
            mixed_energy += float(np.square(mono).sum(dtype=np.float64))
            channels_energy += float(np.square(block).sum(dtype=np.float64)) / block.shape[1]
        mixed.append(mono)
        first.append(block[:, 0])
    if not mixed:
        return np.empty(0, dtype=np.float32)
    cancelled = mixed_energy < _CANCELLED * channels_energy
    return np.ascontiguousarray(np.concatenate(first if cancelled else mixed))


def _too_long(seconds: float, limits: Limits, *, at_least: bool = False) -> AudioTooLarge:
    length = f"more than {limits.max_seconds:.0f}" if at_least else f"{seconds:.0f}"
    return AudioTooLarge(
        f"the audio lasts {length} s, at most {limits.max_seconds:.0f} are read: send a shorter clip"
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "regular file" in text:  # what libsndfile says of an MP3 without one whole frame
        return "damaged or cut off"
    # soundfile names the in-memory file by its address, which tells the caller nothing.
    return text.split(">: ")[-1].rstrip(".") or type(error).__name__
