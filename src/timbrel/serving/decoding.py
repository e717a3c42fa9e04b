"""Decoding in processes of their own: ``read`` is ``timbrel.audio.read``, a wall between it and the service.

Recordings come from strangers, and decoders are large programs in C. One that crashes, hangs or eats memory ends its
own process (``timbrel.serving.decoder_process``) and nothing else: the caller is told that the recording is at fault,
and the next recording gets a new process. Processes are kept, so that a recording does not wait for one to start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from timbrel import audio
from timbrel.audio import Audio, Limits
from timbrel.errors import AudioError, AudioTooLarge, DeadlineExceeded, Unavailable
from timbrel.serving.processes import ONE_THREAD

_ERRORS = {error.__name__: error for error in (AudioError, AudioTooLarge)}
_LINE_BYTES = 4096
_START_SECONDS = 60.0
COMMAND = (sys.executable, "-m", "timbrel.serving.decoder_process")
_SOURCES = str(Path(__file__).resolve().parents[2])


class Decoders:
    """Decoder processes: as many as there are recordings at the same time. Thread-safe."""

    def __init__(self, *, wall_seconds: float = 60.0, command: Sequence[str] = COMMAND) -> None:
        """``wall_seconds``: after them a decoder is ended, whatever it does or waits for."""
        self._wall_seconds = wall_seconds
        self._command = command
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()
        self._closed = False

    def read(self, source: bytes | Path, *, limits: Limits | None = None) -> Audio:
        """As ``timbrel.audio.read``, and an AudioError, too, if decoding crashes or takes too long.

        Raises also DeadlineExceeded (no answer in ``wall_seconds``) and Unavailable (no decoder can be started).
        """
        limits = limits or Limits()
        data = audio.bytes_of(source, limits)
        decoder = self._taken()
        try:
            result = decoder.decode(data, limits, self._wall_seconds)
        except (AudioError, AudioTooLarge):
            self._keep(decoder)
            raise
        except BaseException:
            decoder.end()
            raise
        self._keep(decoder)
        return result

    def warm_up(self, count: int) -> None:
        """Have ``count`` decoders wait. Raises Unavailable."""
        decoders = [_Decoder(self._command) for _ in range(count)]
        for decoder in decoders:
            decoder.wait_ready()
            self._keep(decoder)

    def close(self) -> None:
        """End the decoders; those at work end with their recording."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def _taken(self) -> _Decoder:
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.lives:
                    return decoder
                decoder.end()
        decoder = _Decoder(self._command)
        decoder.wait_ready()
        return decoder

    def _keep(self, decoder: _Decoder) -> None:
        with self._lock:
            if not self._closed and decoder.lives:
                self._idle.append(decoder)
                return
        decoder.end()


class _Crashed(Exception):
    """The process ended, or answered what it never does."""


class _Decoder:
    """One process, for one recording at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
        # In a Bento the package lies beside the service and is not installed.
        paths = (_SOURCES, environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment | ONE_THREAD,
            )
        except OSError as error:
            raise Unavailable(f"no decoder can be started ({error.strerror}): try again later") from None

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self) -> None:
        try:
            with _Watch(self._process, _START_SECONDS):
                self._answer()
        except _Crashed:
            self.end()
            raise Unavailable("the decoder cannot be started: the service's log tells why") from None

    def decode(self, data: bytes, limits: Limits, wall_seconds: float) -> Audio:
        cpu_seconds = cpu_bound(limits)
        head = {"bytes": len(data), "limits": asdict(limits), "cpu_seconds": cpu_seconds}
        try:
            with _Watch(self._process, wall_seconds) as watch:
                self._ask(json.dumps(head).encode() + b"\n", data)
                answer = self._answer()
                if "error" in answer:
                    raise _ERRORS.get(answer["error"], AudioError)(str(answer.get("message")))
                return self._audio(answer, limits)
        except _Crashed:
            self.end()
            if watch.over:
                raise DeadlineExceeded(
                    f"decoding took longer than {wall_seconds:g} s: try again later"
                ) from None
            if self._process.returncode == -signal.SIGXCPU:
                raise AudioError(
                    f"decoding takes more than {cpu_seconds:g} s of the processor: send a shorter clip"
                ) from None
            raise AudioError(
                "not readable as audio (its decoder broke down): export it again, as WAV or FLAC"
            ) from None

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what it never read
                    continue

    def _ask(self, *parts: bytes) -> None:
        assert self._process.stdin is not None
        try:
            for part in parts:
                self._process.stdin.write(part)
            self._process.stdin.flush()
        except OSError:
            raise _Crashed from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline(_LINE_BYTES)
        try:
            answer = json.loads(line)
        except ValueError:
            raise _Crashed from None
        if not isinstance(answer, dict):
            raise _Crashed
        return answer

    def _audio(self, answer: dict[str, Any], limits: Limits) -> Audio:
        """The samples behind the answer; a decoder that was taken over may say anything, and gets nothing by it."""
        assert self._process.stdout is not None
        count, rate = answer.get("samples"), answer.get("sample_rate")
        if (
            not isinstance(count, int)
            or not isinstance(rate, int)
            or not limits.min_sample_rate <= rate <= limits.max_sample_rate
            or not 0 < count <= limits.max_seconds * rate
        ):
            raise _Crashed
        samples = np.empty(count, dtype="<f4")
        # A buffered pipe fills the whole buffer, or has ended.
        if self._process.stdout.readinto(samples.data.cast("B")) != samples.nbytes:  # type: ignore[attr-defined]
            raise _Crashed
        if not np.isfinite(samples).all():
            raise _Crashed
        return Audio(samples.astype(np.float32, copy=False), rate)


class _Watch:
    """Kills a process that has not answered in time; ``over`` says that it did."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        self.over = False

    def __enter__(self) -> _Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _kill(self) -> None:
        self.over = True
        self._process.kill()


def cpu_bound(limits: Limits) -> float:
    """Seconds of the processor that one recording may take: many times what the slowest format needs."""
    return 10.0 + limits.max_seconds / 6


shared = Decoders()
"""The decoders of this process: HTTP and gRPC share them."""
read = shared.read
