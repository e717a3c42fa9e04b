"""The way from a clone to a working .venv: scripts/setup, the locks, and CI's rule about skips."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
excused = runpy.run_path(str(ROOT / "tests/conftest.py"))["excused"]
LOCKS = ("serve", "pipeline", "scale", "encoders", "dev")


def setup(folder: Path, *parts: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/setup", *parts],
        env={"PATH": os.environ["PATH"], "TIMBREL_VENV": str(folder / "venv"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def interpreter(folder: Path, version: str, *, venv: bool = True) -> Path:
    """A stand-in that answers as a Python of this version, with or without its venv module."""
    program = folder / "python"
    asked_for_venv = "exit 0" if venv else "exit 1"
    program.write_text(
        "#!/bin/bash\n"
        f'case "$2" in *ensurepip*) {asked_for_venv};; *"%d.%d-venv"*) echo python{version}-venv;;\n'
        f"*version_info*) exec {sys.executable} -c \"v=tuple(map(int,'{version}'.split('.')));"
        ' raise SystemExit(not (3, 11) <= v <= (3, 12))";; esac\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("version", "venv", "message"),
    [
        ("3.10", True, "setup: PYTHON={python} is not Python 3.11 or 3.12; name one that is"),
        ("3.13", True, "setup: PYTHON={python} is not Python 3.11 or 3.12; name one that is"),
        ("3.12", False, "setup: {python} has no venv module: apt-get install python3.12-venv"),
    ],
)
def test_an_interpreter_that_does_not_do_is_one_line(
    tmp_path: Path, version: str, venv: bool, message: str
) -> None:
    python = interpreter(tmp_path, version, venv=venv)
    done = setup(tmp_path, "serve", PYTHON=str(python))
    assert done.returncode == 1
    assert done.stderr.strip() == message.format(python=python)
    assert not (tmp_path / "venv").exists()


def test_a_part_that_there_is_not(tmp_path: Path) -> None:
    done = setup(tmp_path, "served")
    message = "setup: no such part: served (serve, traces, pipeline, scale, encoders, dev)\n"
    assert (done.returncode, done.stderr) == (1, message)


def locked(part: str) -> dict[str, str]:
    lines = (ROOT / f"requirements/{part}.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("part", LOCKS)
def test_a_lock_holds_exact_versions_and_no_address(part: str) -> None:
    lines = (ROOT / f"requirements/{part}.lock").read_text().splitlines()
    assert all(
        re.fullmatch(r"[a-z0-9-]+==([0-9]+!)?[0-9a-z.]+", line) for line in lines if not line.startswith("#")
    )


def test_no_package_is_locked_twice() -> None:
    names = [name for part in LOCKS for name in locked(part)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("part", LOCKS)
def test_what_is_asked_for_is_locked(part: str) -> None:
    held: dict[str, str] = {}
    for name in LOCKS[: LOCKS.index(part) + 1]:
        held |= locked(name)
    for line in (ROOT / f"requirements/{part}.in").read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text:
            requirement = Requirement(text)
            assert requirement.specifier.contains(held[canonicalize_name(requirement.name)]), text


def test_what_sends_traces_is_locked_on_top_of_serving_and_agrees_with_the_rest() -> None:
    (asked,) = re.findall(r"^[a-z0-9=.-]+", (ROOT / "requirements/traces.in").read_text(), re.MULTILINE)
    traces = locked("traces")
    assert (
        asked == f"opentelemetry-exporter-otlp-proto-http=={traces['opentelemetry-exporter-otlp-proto-http']}"
    )
    assert not traces.keys() & locked("serve").keys()
    for part in LOCKS:
        held = locked(part)
        assert {name: held[name] for name in held.keys() & traces.keys()}.items() <= traces.items()


def test_these_tests_run_on_the_locked_versions() -> None:
    held = {name: version for part in (*LOCKS, "traces") for name, version in locked(part).items()}
    found = {name: metadata.version(name).partition("+")[0] for name in held}
    assert found == held


def test_what_faces_the_network_is_installed_by_its_hashes() -> None:
    lines = (ROOT / "requirements/serve.hashes").read_text().splitlines()
    entries = [line.split(" ") for line in lines if not line.startswith("#")]
    assert dict(name.split("==") for name, *_ in entries) == locked("serve")
    for name, *hashes in entries:
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), name
    script = (ROOT / "scripts/setup").read_text()
    assert "--require-hashes -r requirements/serve.hashes" in script


def test_serving_is_locked_without_training_and_without_a_gpl_engine() -> None:
    assert not set(locked("serve")) & {
        "torch",
        "mlflow",
        "dvc",
        "dexed-py",
        "tinysoundfont",
        "pandas",
        "matplotlib",
    }


@pytest.mark.parametrize(
    ("reason", "allowed"),
    [
        ("no GPU on this machine", True),
        ("NSynth is not here: lay it into data/nsynth", True),
        ("chromium is not installed", False),
        ("Triton cannot run here: no wheel", False),
        ("no Debian package amsynth here", False),
    ],
)
def test_ci_excuses_only_what_no_installation_mends(reason: str, allowed: bool) -> None:
    assert excused(reason) is allowed


@pytest.mark.parametrize(("ci", "failed"), [("", 0), ("true", 1)])
def test_in_ci_a_skip_is_a_failure(tmp_path: Path, ci: str, failed: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='prometheus is not installed')\ndef test_one(): ...\n"
        "def test_two(): pytest.skip('no GPU')\n"
        "@pytest.mark.xfail(reason='known', strict=True)\ndef test_three(): assert False\n"
    )
    environment = os.environ | {"CI": ci}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == failed
    assert ("CI skips nothing that can be installed: prometheus is not installed" in done.stdout) is bool(
        failed
    )
    assert f"{2 - failed} skipped" in done.stdout
