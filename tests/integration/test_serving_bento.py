"""`bentoml build` makes a Bento that serves by itself, from its own sources and its own bundle."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from support.recordings import wav_note
from support.serving import START_SECONDS, free_ports, still_running
from support.tiny_bundle import tiny_bundle_folder

from timbrel.settings import ROOT


def _context(folder: Path) -> Path:
    """The repository as far as bentofile.yaml needs it, with the tiny bundle."""
    for name in ("src", "model_repository", "requirements"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in ("service.py", "bentofile.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(tiny_bundle_folder(), folder / "bundle")
    return folder


def test_a_bento_builds_and_serves(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIMBREL_")}
    environment |= {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    (tmp_path / "context").mkdir()
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "-o", "tag"],
        cwd=_context(tmp_path / "context"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip().rpartition("__tag__:")[2]
    folder = tmp_path / "home" / "bentos" / tag.replace(":", "/")
    assert (folder / "src" / "bundle" / "manifest.json").is_file()
    assert (folder / "src" / "model_repository" / "generator" / "config.pbtxt").is_file()
    assert "bentoml==1.4.39" in (folder / "env" / "python" / "requirements.txt").read_text()

    # What it was built from is gone, and the working directory is another one.
    shutil.rmtree(tmp_path / "context")
    ports = free_ports()
    port = ports.http
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env=environment | {"TIMBREL_WORKERS": "1", "TIMBREL_GRPC_PORT": str(ports.grpc)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    family = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(client):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            family = psutil.Process(process.pid).children(recursive=True)
            answer = client.post("/search", files={"audio": ("clip", wav_note())}, data={"k": "1"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["query"]["gate"]["decision"] == "pitched"
            assert 'engine="inprocess"' in client.get("/metrics").text
            script = re.search(r'src="(/assets/[^"]+)"', client.get("/").text)
            assert script is not None
            assert client.get(script[1]).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert still_running(family) == []


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
