"""Decoding behind a wall: bombs, crashes, hangs and greed end one decoder, and the next recording gets another."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from support.bombs import RATE, flac_bomb, mp3_bomb
from support.recordings import encoded, note, wav_note

from timbrel import audio
from timbrel.audio import Limits
from timbrel.errors import AudioError, AudioTooLarge, DeadlineExceeded, TimbrelError, Unavailable
from timbrel.serving import decoding
from timbrel.serving.decoder_process import memory_bytes
from timbrel.serving.decoding import Decoders

# A decoder that does what its recording says, in place of decoding it.
UNRULY = """
import ctypes, signal, time
import numpy as np
from timbrel import audio
from timbrel.serving import decoder_process
read = audio.read

def unruly(data, *, limits=None):
    if data == b"crash":
        ctypes.string_at(0)
    if data == b"hang":
        time.sleep(3600)
    if data == b"spin":
        while True: pass
    if data == b"eat":
        return np.ones(1 << 40)
    if data == b"open":
        return open("/etc/hostname")
    if data == b"write":
        print("noise"); raise AudioError("said")
    if data == b"long":
        return audio.Audio(np.zeros(61 * 8000, dtype=np.float32), 8000)
    if data == b"nan":
        return audio.Audio(np.full(9, np.nan, dtype=np.float32), 8000)
    return read(data, limits=limits)

audio.read = unruly
decoder_process.main()
"""


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with contextlib.closing(Decoders()) as opened:
        yield opened


@pytest.fixture
def unruly() -> Iterator[Decoders]:
    with contextlib.closing(Decoders(command=(sys.executable, "-c", UNRULY))) as opened:
        yield opened


def _children() -> list[psutil.Process]:
    """The decoders of this process."""
    return [each for each in psutil.Process().children() if "decoder_process" in " ".join(each.cmdline())]


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")],
)
def test_it_reads_what_the_audio_edge_reads(decoders: Decoders, container: str, subtype: str) -> None:
    data = encoded(note(44_100, channels=2), 44_100, container, subtype)
    ours, theirs = decoders.read(data), audio.read(data)
    assert ours.sample_rate == theirs.sample_rate == 44_100
    np.testing.assert_array_equal(ours.samples, theirs.samples)
    assert ours.samples.dtype == np.float32
    assert ours.samples.flags.writeable


@pytest.mark.parametrize(
    "data", [b"", b"text", wav_note()[:30], encoded(np.zeros(10), 4_000, "WAV", "PCM_16")]
)
def test_it_refuses_in_the_same_words(decoders: Decoders, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(data)
    for source in (data, tmp_path / "clip"):
        with pytest.raises(TimbrelError) as ours:
            decoders.read(source)
        with pytest.raises(TimbrelError) as theirs:
            audio.read(data)
        assert (type(ours.value), ours.value.message) == (type(theirs.value), theirs.value.message)


def test_a_process_is_kept_for_the_next_recording(decoders: Decoders) -> None:
    decoders.warm_up(2)
    before = {process.pid for process in _children()}
    assert len(before) == 2
    for data in (wav_note(), b"no audio", wav_note()):
        with contextlib.suppress(AudioError):
            decoders.read(data)
    with ThreadPoolExecutor(2) as pool:
        assert len({each.sample_rate for each in pool.map(decoders.read, [wav_note()] * 8)}) == 1
    assert {process.pid for process in _children()} == before
    decoders.close()
    assert _children() == []


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"crash", AudioError, "its decoder broke down"),
        (b"long", AudioError, "its decoder broke down"),
        (b"nan", AudioError, "its decoder broke down"),
        (b"eat", AudioTooLarge, "too much memory"),
        (b"open", AudioError, "not readable as audio: send WAV"),
        (b"write", AudioError, "not readable as audio: send WAV"),
    ],
)
def test_what_a_decoder_does_harms_nobody(
    unruly: Decoders, data: bytes, error: type[TimbrelError], says: str
) -> None:
    with pytest.raises(error, match=says):
        unruly.read(data)
    assert unruly.read(wav_note()).seconds == pytest.approx(audio.read(wav_note()).seconds)


def test_one_that_computes_without_end_is_ended(unruly: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "cpu_bound", lambda limits: 0.5)
    unruly.read(wav_note())
    with pytest.raises(AudioError, match=r"more than 0\.5 s of the processor"):
        unruly.read(b"spin")
    unruly.read(wav_note())


def test_one_that_waits_without_end_is_ended() -> None:
    with contextlib.closing(Decoders(command=(sys.executable, "-c", UNRULY), wall_seconds=1.0)) as unruly:
        unruly.read(wav_note())
        with pytest.raises(DeadlineExceeded, match="longer than 1 s"):
            unruly.read(b"hang")
        unruly.read(wav_note())
    assert _children() == []


def test_one_that_was_killed_while_it_waited_is_replaced(decoders: Decoders) -> None:
    decoders.warm_up(1)
    (process,) = _children()
    process.kill()
    psutil.wait_procs([process])
    decoders.read(wav_note())


def test_one_that_cannot_start() -> None:
    for command, says in (
        ((sys.executable, "-c", "raise SystemExit(3)"), "the decoder cannot be started"),
        (("/nowhere",), "no decoder can be started"),
    ):
        decoders = Decoders(command=command)
        with pytest.raises(Unavailable, match=says):
            decoders.read(wav_note())
    assert _children() == []


def test_closing_while_one_is_at_work(unruly: Decoders) -> None:
    unruly.warm_up(1)
    (process,) = _children()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            unruly.read(b"hang")
        except TimbrelError as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    unruly.close()
    process.kill()
    thread.join()
    assert _children() == []


def test_its_rights_and_its_memory_are_bounded(decoders: Decoders) -> None:
    limits = Limits(max_bytes=1 << 20, max_seconds=10)
    decoders.read(wav_note(), limits=limits)
    (process,) = _children()
    bounds = {
        line[:26].strip(): line[26:].split()[0]
        for line in Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    }
    assert (bounds["Max open files"], bounds["Max file size"], bounds["Max core file size"]) == (
        "0",
        "0",
        "0",
    )
    assert int(bounds["Max address space"]) < memory_bytes(limits) + (1 << 30)
    assert int(bounds["Max cpu time"]) <= decoding.cpu_bound(limits) + 10
    assert memory_bytes(Limits()) < 1 << 30


# --- bombs -------------------------------------------------------------------------------------------------------

BOMBS: dict[str, tuple[bytes, float | None]] = {
    "flac": (flac_bomb(), None),
    "flac of unknown length": (flac_bomb(promised_seconds=0), None),
    "flac that promises 99 days": (flac_bomb(promised_seconds=(1 << 36) // RATE - 1), None),
    "flac that promises 20 s": (flac_bomb(promised_seconds=20), 20.0),
    "mp3": (mp3_bomb(honest=True), None),
    "mp3 that promises 10 s": (mp3_bomb(honest=False), 10.0),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_not_decoded_beyond_the_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, promised = BOMBS[name]
    decoded = 0
    read = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, *args: Any, **kwargs: Any) -> np.ndarray:
        nonlocal decoded
        block: np.ndarray = read(self, *args, **kwargs)
        decoded += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    if promised is None:
        with pytest.raises(AudioTooLarge, match="at most 60 are read"):
            audio.read(data)
    else:  # no more than it promises: the rest is not looked at
        assert audio.read(data).seconds == pytest.approx(promised, abs=0.3)
    assert decoded <= 61 * RATE


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_memory(decoders: Decoders, name: str) -> None:
    data, _ = BOMBS[name]
    decoders.warm_up(1)
    (process,) = _children()
    before = _peak_mib(process)
    with contextlib.suppress(AudioTooLarge):
        decoders.read(data)
    assert _peak_mib(process) - before < 3 * len(data) / 2**20 + 16  # an hour of float32 is 110 MiB


def test_a_stream_that_goes_on_beyond_its_header_is_cut_at_the_limit() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(100 * RATE), RATE, format="AU", subtype="ULAW")
    data = bytearray(file.getvalue())
    data[8:12] = b"\xff" * 4  # AU's word for: until the end
    with pytest.raises(AudioTooLarge, match="at most 60 are read"):
        audio.read(bytes(data))


def _peak_mib(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
