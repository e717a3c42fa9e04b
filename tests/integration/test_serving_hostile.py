"""What strangers may try on a running service: bombs, recordings that crash the decoder, paths that lead elsewhere."""

from __future__ import annotations

import fcntl
import http.client
import random
import signal
import struct
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bombs import flac_bomb, mp3_bomb
from support.mutated import mutated, whole_files
from support.recordings import wav_note
from support.serving import Serving

PATIENCE_SECONDS = 30
FILES = whole_files()


def _search(http: httpx.Client, audio: bytes) -> httpx.Response:
    return http.post("/search", files={"audio": ("clip", audio)}, data={"k": "1"})


def _decoders(serving: Serving) -> list[psutil.Process]:
    running = [each for each in serving.family() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in running if "timbrel.serving.decoder_process" in each.cmdline()]


def _holds_a_recording(process: psutil.Process) -> bool:
    """Whether something waits in the pipe to the process."""
    with open(f"/proc/{process.pid}/fd/0", "rb") as pipe:
        waiting = fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0))
    return bool(struct.unpack("i", waiting)[0])


@pytest.mark.parametrize("path", ["/search", "/locate"])
@pytest.mark.parametrize(
    "bomb",
    [flac_bomb(), flac_bomb(promised_seconds=0), mp3_bomb(honest=True)],
    ids=["flac", "no length", "mp3"],
)
def test_a_bomb_is_refused(http: httpx.Client, path: str, bomb: bytes) -> None:
    answer = http.post(path, files={"audio": ("clip", bomb)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_large")
    assert "at most 60 are read: send a shorter clip" in answer.json()["error"]["message"]


def test_a_decoder_that_crashes_is_the_recordings_fault_and_nobody_elses(
    serving: Serving, http: httpx.Client
) -> None:
    workers = {process.ppid() for process in _decoders(serving)}
    assert len(workers) == 2
    decoders = _decoders(serving)
    assert len(decoders) >= 4
    for process in decoders:
        process.suspend()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_search, http, wav_note())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(map(_holds_a_recording, decoders)):
            assert time.monotonic() < deadline, "no decoder was given the recording"
            time.sleep(0.01)
        for process in decoders:
            process.send_signal(signal.SIGSEGV)
            process.resume()
        answer = asked.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unreadable_audio")
    assert "its decoder broke down" in answer.json()["error"]["message"]
    assert _search(http, wav_note()).status_code == 200
    after = _decoders(serving)
    assert after
    assert {process.ppid() for process in after} <= workers, "the workers are those of before"
    assert not set(after) & set(decoders)


TRAVERSALS = [
    "../../manifest.json",
    "..%2f..%2fmanifest.json",
    "%2e%2e/%2e%2e/manifest.json",
    "..%5c..%5cmanifest.json",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..%252f..%252fmanifest.json",
    "dx7-0%00.mp3",
    "dx7-0/../../../manifest.json",
    "%c0%ae%c0%ae%c0%afmanifest.json",
    "file:%2f%2f%2fetc%2fpasswd",
    "~root",
    "*",
    "a" * 4000,
]


@pytest.mark.parametrize("what", ["file", "preview"])
@pytest.mark.parametrize("patch_id", TRAVERSALS)
def test_no_path_leads_out_of_the_library(serving: Serving, patch_id: str, what: str) -> None:
    # The bare client sends the path as it is; others tidy it.
    for path in (f"/patches/{patch_id}/{what}", f"/patches/{patch_id}"):
        connection = http.client.HTTPConnection("127.0.0.1", serving.ports.http, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status == 404, body[:200]
        assert b'"not_found"' in body
        assert b"root:x:" not in body
        assert b"schema" not in body


def test_no_id_of_a_search_leads_out_of_the_library(http: httpx.Client) -> None:
    for patch_id in TRAVERSALS:
        answer = http.post("/search", json={"like": patch_id})
        assert answer.status_code in (400, 404), answer.text
        assert answer.json()["error"]["code"] in ("not_found", "invalid_input")


def test_the_name_of_an_upload_leads_nowhere(http: httpx.Client, serving: Serving, tmp_path: Path) -> None:
    # Outside of where uploads are kept, and a place that whoever runs this may write to.
    target = tmp_path / "timbrel-was-here"
    upwards = "../" * 8 + str(target).lstrip("/")
    for name in (upwards, str(target), "a\x00b"):
        assert http.post("/search", files={"audio": (name, wav_note())}).status_code == 200
    assert not target.exists()
    assert not list(serving.state.rglob("timbrel-was-here"))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_no_damaged_upload_crashes_it(serving: Serving, http: httpx.Client, rng: random.Random) -> None:
    """benchmarks/fuzz_uploads.py sends 10,000 of them."""
    answer = _search(http, mutated(FILES, rng))
    assert answer.status_code in (200, 400, 413), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] in ("unreadable_audio", "audio_too_large")
        assert "its decoder broke down" not in answer.json()["error"]["message"]


def test_every_file_is_whole_before_it_is_damaged(http: httpx.Client) -> None:
    for data in FILES:
        assert _search(http, data).status_code == 200
