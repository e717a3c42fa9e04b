"""Passes on what the launcher's children write, from their log files, as lines of JSON (TIMBREL_LOG=json).

The children write into files and not into pipes: none of them ever waits for the launcher, or dies with it unheard.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from timbrel.serving.logs import JsonStream, json_line

_POLL_SECONDS = 0.1
# How Triton begins a line: I1122 23:54:25.123456 123 server.cc:305] "All models are stopped"
_TRITON = re.compile(r'([IWEF])\d{4} [\d:.]+ +\d+ ([\w.]+:\d+)\] "?(.*?)"?$')
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "critical"}


class Forwarder:
    """On a thread of its own, until it is closed."""

    def __init__(self, stream: JsonStream) -> None:
        self._stream = stream
        self._files: list[_Followed] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def follow(self, component: str, log: Path) -> None:
        """Pass on all that is in this file, and all that comes."""
        self._files = [*self._files, _Followed(component, log)]

    def close(self) -> None:
        """Pass on the rest. Call it when nothing more is written."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(_POLL_SECONDS)
            for file in self._files:
                for line in file.lines(whole=not closing):
                    self._stream.write(line)


class _Followed:
    """A file that grows."""

    def __init__(self, component: str, path: Path) -> None:
        self._component = component
        self._path = path
        self._offset = 0

    def lines(self, *, whole: bool) -> list[str]:
        """What is new, as JSON, less empty lines and the rules of Triton's tables; ``whole``: without a last line
        that has no end yet."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        if whole:
            new = new[: new.rfind(b"\n") + 1]
        self._offset += len(new)
        texts = new.decode("utf-8", "replace").split("\n")
        return [as_json(self._component, text.rstrip()) for text in texts if text.strip("+- \r")]


def as_json(component: str, text: str) -> str:
    """The line itself if it is one of ours, else around it what is known of it."""
    if text.startswith("{"):
        try:
            if "component" in json.loads(text):
                return text
        except ValueError:
            pass
    found = _TRITON.match(text)
    if found:
        return json_line(component, _LEVELS[found[1]], found[3], logger=found[2])
    return json_line(component, "info", text)
