"""Reading: every format that is promised, and an answer with a reason for everything else."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from timbrel.audio import SAMPLE_RATE, Audio, Limits, read, resample, wav_bytes
from timbrel.errors import AudioError, AudioTooLarge

FORMATS = [
    ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("AIFF", "FLOAT"),
]  # fmt: skip


def tone(rate: int, seconds: float = 0.5, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def encode(samples: np.ndarray, rate: int, format: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(out, "w", rate, channels, format=format, subtype=subtype) as file:
        # In pieces: libsndfile's Vorbis writer overflows its stack when it is given minutes at once.
        for start in range(0, len(samples), 65_536):
            file.write(samples[start : start + 65_536])
    return out.getvalue()


def strongest_hz(audio: Audio) -> float:
    spectrum = np.abs(np.fft.rfft(audio.samples * np.hanning(len(audio.samples))))
    return float(np.argmax(spectrum)) * audio.sample_rate / len(audio.samples)


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_tone_back(format: str, subtype: str, rate: int, channels: int) -> None:
    try:
        data = encode(np.stack([tone(rate)] * channels, axis=1), rate, format, subtype)
    except soundfile.LibsndfileError:
        assert format in ("MP3", "OGG"), "only the lossy formats have a list of rates of their own"
        return
    audio = read(data)
    assert audio.sample_rate == rate
    assert audio.samples.dtype == np.float32
    assert audio.seconds == pytest.approx(0.5, abs=0.06)  # MP3 pads its ends
    assert strongest_hz(audio) == pytest.approx(440.0, abs=3.0)
    middle = audio.samples[len(audio.samples) // 4 : -len(audio.samples) // 4]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.3536, rel=0.03)


def test_integer_samples_are_exact() -> None:
    samples = np.array([0, 1, -1, 32767, -32768, 12345], dtype=np.int16)
    assert read(encode(samples, 48_000)).samples.tolist() == (samples / 32768.0).tolist()


def test_channels_are_averaged() -> None:
    left, right = tone(8_000), np.full(4_000, 0.25)
    audio = read(encode(np.stack([left, right], axis=1), 8_000, subtype="FLOAT"))
    np.testing.assert_allclose(audio.samples, (left + right) / 2, atol=1e-6)


def test_channels_that_cancel_leave_the_first() -> None:
    left = tone(8_000)
    audio = read(encode(np.stack([left, -left], axis=1), 8_000, subtype="FLOAT"))
    np.testing.assert_allclose(audio.samples, left, atol=1e-6)


def test_six_channels() -> None:
    channels = np.stack([tone(8_000, level=0.1 * i) for i in range(6)], axis=1)
    np.testing.assert_allclose(
        read(encode(channels, 8_000, subtype="FLOAT")).samples, tone(8_000, level=0.25), atol=1e-6
    )


def test_float_beyond_full_scale_is_scaled_to_it() -> None:
    audio = read(encode(tone(8_000, level=20_000.0), 8_000, subtype="FLOAT"))
    assert np.abs(audio.samples).max() == pytest.approx(1.0)
    assert strongest_hz(audio) == pytest.approx(440.0, abs=3.0)


def test_a_path_reads_as_its_bytes(tmp_path: Path) -> None:
    data = encode(tone(8_000), 8_000, "FLAC")
    (tmp_path / "note.raw").write_bytes(data)  # the content decides, not the name
    assert read(tmp_path / "note.raw").samples.tolist() == read(data).samples.tolist()


HEADER = encode(np.zeros(0), 44_100)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (HEADER, "no samples"),
        (HEADER[:20], "not readable"),
        (b"RIFF", "not readable"),
        (b"not audio at all, just a sentence" * 50, "not readable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not readable"),
        (b"\xff\xfb\x90\x00" + bytes(500), "damaged or cut off"),
        (encode(np.full(100, np.nan), 44_100, subtype="FLOAT"), "NaN or infinite"),
        (encode(np.full(100, 1e300), 44_100, subtype="DOUBLE"), "NaN or infinite"),
        (encode(np.full((100, 2), 3e38), 44_100, subtype="FLOAT"), "NaN or infinite"),
        (encode(np.zeros(100), 4_000), "4000 Hz"),
        (encode(np.zeros(100), 384_000), "384000 Hz"),
        (encode(np.zeros((10, 65)), 8_000), "65 channels"),
        (encode(np.zeros(100), 8_000, "VOC", "PCM_16"), "VOC files are not read"),
    ],
)
def test_what_is_not_a_recording_is_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(AudioError, match=says) as caught:
        read(data)
    assert "\n" not in caught.value.message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nowhere\.wav.*No such file"):
        read(tmp_path / "nowhere.wav")
    with pytest.raises(AudioError, match="Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize(("format", "seconds"), [("WAV", 1_800), ("FLAC", 1_800), ("OGG", 90), ("MP3", 90)])
def test_what_is_too_long_is_refused_by_its_header(format: str, seconds: int) -> None:
    data = encode(np.zeros(8_000 * seconds, dtype=np.int16), 8_000, format)
    with pytest.raises(AudioTooLarge, match=f"{seconds} s"):
        read(data)


def test_the_limits_are_inclusive() -> None:
    data = encode(tone(8_000, 1.0), 8_000)
    limits = Limits(max_seconds=1.0, max_bytes=len(data))
    assert read(data, limits=limits).seconds == 1.0
    with pytest.raises(AudioTooLarge):
        read(encode(tone(8_000, 1.001), 8_000), limits=limits)
    with pytest.raises(AudioTooLarge, match="MiB"):
        read(data, limits=Limits(max_bytes=len(data) - 1))


def test_a_header_that_promises_less_than_it_holds_does_not_pass_the_limit() -> None:
    """A FLAC stream may leave its length open (0): decoding stops at the limit all the same."""
    data = bytearray(encode(np.zeros(8_000 * 30, dtype=np.int16), 8_000, "FLAC"))
    # STREAMINFO follows "fLaC" and a 4-byte block header; 36 bits before its MD5 are the sample count.
    assert data[:4] == b"fLaC"
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    with pytest.raises(AudioTooLarge):
        read(bytes(data), limits=Limits(max_seconds=5.0))


def test_a_cut_off_wav_gives_what_is_there() -> None:
    data = encode(tone(8_000, 1.0), 8_000)
    assert read(data[: 44 + 8_000]).seconds == 0.5


def test_wav_bytes_round_trips_to_half_a_step() -> None:
    audio = Audio(tone(SAMPLE_RATE).astype(np.float32), SAMPLE_RATE)
    again = read(wav_bytes(audio))
    assert again.sample_rate == SAMPLE_RATE
    np.testing.assert_allclose(again.samples, audio.samples, atol=1.0 / 32768)


def test_wav_bytes_clips_instead_of_wrapping() -> None:
    again = read(wav_bytes(Audio(np.array([2.0, -2.0, 0.0], dtype=np.float32), 8_000)))
    np.testing.assert_allclose(again.samples, [1.0, -1.0, 0.0], atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 192_000])
def test_resampling_keeps_pitch_level_and_length(rate: int) -> None:
    audio = resample(Audio(tone(rate, 1.0).astype(np.float32), rate))
    assert audio.sample_rate == SAMPLE_RATE
    assert len(audio.samples) == SAMPLE_RATE
    np.testing.assert_allclose(audio.samples[2_000:-2_000], tone(SAMPLE_RATE, 1.0)[2_000:-2_000], atol=2e-3)


def test_resampling_to_the_same_rate_is_the_same_object() -> None:
    audio = Audio(np.zeros(8, dtype=np.float32), SAMPLE_RATE)
    assert resample(audio) is audio


@settings(max_examples=150, deadline=None)
@given(
    frames=st.integers(1, 3_000),
    channels=st.integers(1, 4),
    rate=st.sampled_from([8_000, 11_025, 44_100, 192_000]),
    subtype=st.sampled_from(["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_wav_reads_as_the_mean_of_its_channels(
    frames: int, channels: int, rate: int, subtype: str, seed: int
) -> None:
    samples = np.random.default_rng(seed).uniform(-1.0, 1.0, (frames, channels))
    audio = read(encode(samples, rate, subtype=subtype))
    assert audio.sample_rate == rate
    expected = samples.mean(axis=1)
    if np.square(expected).sum() >= 1e-2 * np.square(samples).mean(axis=1).sum():
        np.testing.assert_allclose(audio.samples, expected, atol=2.0 / 32768)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_read_or_be_refused(data: bytes) -> None:
    _read_or_refuse(data)


SEEDS = [encode(tone(8_000, 0.1), 8_000, f, s) for f, s in FORMATS if (f, s) != ("MP3", "MPEG_LAYER_III")] + [
    encode(tone(16_000, 0.1), 16_000, "MP3")
]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    cut=st.floats(0.0, 1.0),
    flips=st.lists(st.tuples(st.floats(0.0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_no_damaged_file_does_anything_but_read_or_be_refused(
    data: bytes, cut: float, flips: list[tuple[float, int]]
) -> None:
    damaged = bytearray(data[: max(1, round(len(data) * cut))])
    for position, value in flips:
        damaged[int(position * len(damaged))] = value
    _read_or_refuse(bytes(damaged))


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_header_that_leads_before_the_beginning() -> None:
    """libsndfile seeks to where a chunk's size sends it; whatever it does there is no traceback in a server's log."""
    data = encode(tone(8_000, 0.1), 8_000, "AIFF")
    for position in range(4, 60):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] = value
            _read_or_refuse(bytes(damaged))


def test_a_wav_header_that_claims_four_gigabytes() -> None:
    data = bytearray(encode(tone(8_000, 0.1), 8_000))
    data[40:44] = struct.pack("<I", 0xFFFFFFFE)
    _read_or_refuse(bytes(data))


def _read_or_refuse(data: bytes) -> None:
    limits = Limits()
    try:
        audio = read(data, limits=limits)
    except (AudioError, AudioTooLarge) as error:
        refusal = error.message
    else:
        assert audio.samples.ndim == 1
        assert audio.samples.dtype == np.float32
        assert len(audio.samples) > 0
        assert np.isfinite(audio.samples).all()
        assert np.abs(audio.samples).max() <= 1.0
        assert audio.seconds <= limits.max_seconds
        return
    assert refusal
    assert "\n" not in refusal
