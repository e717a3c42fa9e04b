"""Runs a service where there is no network, and keeps what it answers; for a Bento's own interpreter.

    unshare --user --map-root-user --net  PYTHON offline_service.py CLIP OUT URL COMMAND…

Asks with the API key in OUT/key, if there is one. Writes OUT/search.json, OUT/note.wav and OUT/metrics.txt; exits with
0 if the service answered and ended by itself on SIGINT. Imports nothing of the tests: only what the Bento brings is
there.
"""

from __future__ import annotations

import fcntl
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
START_SECONDS = 120


def main(clip: str, out: str, url: str, *command: str) -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "there is a network"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    log = Path(out, "log.txt")
    with log.open("wb") as output:
        service = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        key = Path(out, "key")
        headers = {"authorization": f"Bearer {key.read_text().strip()}"} if key.exists() else {}
        with httpx.Client(base_url=url, timeout=60, trust_env=False, headers=headers) as client:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(client):
                assert service.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            files = {"audio": ("clip", Path(clip).read_bytes())}
            found = client.post("/search", files=files, data={"k": "5"})
            assert found.status_code == 200, found.text
            Path(out, "search.json").write_bytes(found.content)
            note = client.post("/synthesize", json={"x": 0.2, "y": -0.4, "pitch": 60, "seconds": 1})
            assert note.status_code == 200, note.text
            Path(out, "note.wav").write_bytes(note.content)
            Path(out, "metrics.txt").write_bytes(client.get("/metrics").content)
    finally:
        service.send_signal(signal.SIGINT)
        ended = service.wait(timeout=90)
    assert ended in (0, -signal.SIGINT), (ended, log.read_text())


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
