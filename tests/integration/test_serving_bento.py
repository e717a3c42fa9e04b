"""`bentoml build` makes a Bento that serves by itself: from its own folder, with the packages of its own list, without
a network; and `bentoml containerize` makes an image of it from a Dockerfile that a linter has read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.compose import compose
from support.recordings import wav_note
from support.serving import free_ports
from support.tiny_bundle import tiny_bundle_folder
from support.tools import tool

import timbrel
from timbrel.settings import ROOT

GUEST = Path(__file__).parent.parent / "support" / "offline_service.py"
# What hadolint says of lines that BentoML's template writes and no option of its changes.
IGNORED = {
    "DL3013": "`pip install uv` without a version: never reached, service.py has installed one by its hash",
    "DL3042": "the same line's cache",
    "DL3046": "useradd without --no-log-init: the user's number, 1034, is small",
    "DL3066": "the user is named, not numbered: deploy/kubernetes sets the number that this name has",
    "SC3020": "&> in sh: both of its branches make the same user",
}


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIMBREL_", "PYTHON"))}
    return kept | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Bento with the tiny bundle, away from the store it was built in; nothing it was built from is left."""
    folder = tmp_path_factory.mktemp("bento")
    context, home = folder / "context", folder / "home"
    for name in ("src", "model_repository", "requirements"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, context / name, ignore=ignored)
    for name in ("service.py", "bentofile.yaml"):
        shutil.copyfile(ROOT / name, context / name)
    shutil.copytree(tiny_bundle_folder(), context / "bundle")
    built = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "-o", "tag"],
        cwd=context,
        env=_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip().rpartition("__tag__:")[2]
    # The Dockerfile that `bentoml containerize` hands to Docker; bentoml.container.get_containerfile writes it, too.
    written = f"import bentoml; bentoml.container.get_containerfile({tag!r}, {str(folder / 'Dockerfile')!r})"
    subprocess.run([sys.executable, "-c", written], env=_environment(home), check=True, capture_output=True)
    shutil.move(home / "bentos" / tag.replace(":", "/"), folder / "moved")
    shutil.rmtree(context)
    shutil.rmtree(home)
    yield folder / "moved"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def own_python(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An interpreter with the packages of the Bento's list and no other, installed as its Dockerfile does."""
    folder = tmp_path_factory.mktemp("own") / "venv"
    uv = tool("uv")
    environment = _environment(folder) | {"UV_NO_BUILD": "1", "UV_NO_PROGRESS": "1"}
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], env=environment, check=True)
    install = [uv, "pip", "install", "-q", "--python", folder / "bin" / "python"]
    installed = subprocess.run(
        [*install, "-r", bento / "env" / "python" / "requirements.txt"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if installed.returncode != 0 and "Failed to fetch" in installed.stderr:
        pytest.skip(f"no package index can be reached: {installed.stderr.splitlines()[0]}")
    assert installed.returncode == 0, installed.stderr
    yield folder / "bin" / "python"
    shutil.rmtree(folder)


def _versions(requirements: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s\\]+)", requirements, re.MULTILINE))


def test_a_bento_is_complete(bento: Path) -> None:
    assert (bento / "src" / "bundle" / "manifest.json").read_bytes() == (
        tiny_bundle_folder() / "manifest.json"
    ).read_bytes()
    assert (bento / "src" / "model_repository" / "generator" / "config.pbtxt").is_file()
    assert (bento / "src" / "src" / "timbrel" / "serving" / "page" / "index.html").is_file()


def test_its_packages_are_the_locked_ones_by_version_and_hash(bento: Path) -> None:
    requirements = (bento / "env" / "python" / "requirements.txt").read_text()
    locked = (ROOT / "requirements" / "serve.lock").read_text()
    assert _versions(requirements) == _versions(locked)
    hashed = re.findall(r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", requirements, re.MULTILINE)
    assert set(hashed) == set(_versions(locked))
    uv = _versions((ROOT / "requirements" / "dev.lock").read_text())["uv"]
    assert f"echo 'uv=={uv} --hash=sha256:" in (bento / "env" / "docker" / "Dockerfile").read_text()


@pytest.fixture
def offline() -> list[str]:
    """What runs a command where there is no network."""
    prefix = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode != 0:
        pytest.skip("no network namespace can be made here")
    return prefix


def _served(
    out: Path, prefix: list[str], python: Path, port: int, command: list[str], own: dict[str, str]
) -> str:
    """Start the service, ask it and end it, all in a process of the Bento's own; returns its metrics."""
    (out / "clip.wav").write_bytes(wav_note())
    guest = [str(GUEST), str(out / "clip.wav"), str(out), f"http://127.0.0.1:{port}"]
    asked = subprocess.run(
        [*prefix, str(python), *guest, str(python), *command],
        cwd=out,
        env=_environment(out / "home") | {"PATH": f"{python.parent}:/usr/bin:/bin"} | own,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    with timbrel.Client(bundle=tiny_bundle_folder()) as client:
        wanted = client.search(out / "clip.wav", k=5)
        note = client.synthesize(x=0.2, y=-0.4, pitch=60, seconds=1)
    hits = json.loads((out / "search.json").read_text())["hits"]
    assert [hit["patch_id"] for hit in hits] == [hit.patch_id for hit in wanted.hits]
    np.testing.assert_allclose(
        [hit["distance"] for hit in hits], [hit.distance for hit in wanted.hits], atol=1e-6
    )
    samples, rate = soundfile.read(out / "note.wav", dtype="float32")
    assert rate == note.sample_rate
    np.testing.assert_allclose(samples, note.samples, atol=2 / 32768)
    return (out / "metrics.txt").read_text()


def test_a_bento_serves_from_its_own_folder_without_a_network(
    bento: Path, own_python: Path, offline: list[str], tmp_path: Path
) -> None:
    ports = free_ports()
    command = ["-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(ports.http)]
    own = {
        "TIMBREL_WORKERS": "1",
        "TIMBREL_GRPC_PORT": str(ports.grpc),
        "TIMBREL_STATE": str(tmp_path / "state"),
    }
    assert 'engine="inprocess"' in _served(tmp_path, offline, own_python, ports.http, command, own)


def test_it_serves_as_in_its_container(
    bento: Path, own_python: Path, offline: list[str], tmp_path: Path
) -> None:
    """With the command and the settings of deploy/compose.yaml, where nothing can be written but its volumes."""
    service = compose("compose.cpu.yaml")["services"]["timbrel"]
    state, registry = tmp_path / "state", tmp_path / "registry"
    (registry / "live").mkdir(parents=True)
    state.mkdir()
    own = {
        name: re.sub("^/registry", str(registry), re.sub("^/state", str(state), value))
        for name, value in service["environment"].items()
    }
    own |= {"PYTHONPATH": str(bento / "src" / "src"), "TMPDIR": str(state), "TIMBREL_WORKERS": "1"}
    _, *command = service["command"]
    made = subprocess.run(
        [own_python, "-m", "timbrel", "keys", "create", "studio"],
        env=_environment(tmp_path / "home") | own,
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "key").write_text(made.stdout)
    read_only = 'mount --rbind / / && mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
    prefix = [*offline, "sh", "-euc", read_only, str(tmp_path)]
    assert service["read_only"] is True
    # Its own network: the ports of the image are free there, whatever runs here.
    assert 'engine="inprocess"' in _served(tmp_path, prefix, own_python, 3000, command, own)
    assert {path.name for path in state.iterdir()} == {"logs", "rates", "numba", "keys.json"}


def test_the_dockerfile_is_linted(bento: Path) -> None:
    """By hadolint; a new word of it is a failure, and so is an ignored one that it no longer says."""
    linted = subprocess.run(
        [tool("hadolint"), "--no-color", "--no-fail", str(bento.parent / "Dockerfile")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall(r" ((?:DL|SC)\d{4}) ", linted.stdout)) == set(IGNORED), linted.stdout


def test_the_image_is_pinned_small_and_nobodys(bento: Path) -> None:
    dockerfile = (bento.parent / "Dockerfile").read_text()
    base = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert base == ["python:3.11.14-slim-bookworm"]
    # No compiler and no git: every package is a wheel.
    assert "apt-get" not in dockerfile
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE) == ["bentoml"]
    assert "ARG BENTO_USER_UID=1034" in dockerfile
    assert dockerfile.rstrip().endswith('ENTRYPOINT [ "/home/bentoml/bento/env/docker/entrypoint.sh" ]')
