"""Write serve.hashes, the SHA-256 of every file that scripts/setup may install for serving: ``make lock``.

Asks pip, which asks the registry, which files it would take for serve.lock on Linux, x86-64 and 64-bit ARM, with each
Python that Timbrel runs on. scripts/setup installs nothing else: a file that was exchanged later is refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PYTHONS = ("3.11", "3.12")
MACHINES = ("x86_64", "aarch64")
GLIBCS = range(5, 40)  # manylinux_2_5 to manylinux_2_39
HEADER = (
    "# Every file of serve.lock that may be installed, by its SHA-256: Linux, x86-64 and 64-bit ARM, Python 3.11 and\n"
    "# 3.12. `make lock` writes it, scripts/setup installs serving from it with --require-hashes.\n"
)


def wanted(python: str, machine: str) -> dict[str, str]:
    """``name==version`` → SHA-256 of the wheel that pip takes there."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in reversed(GLIBCS)]
    platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--no-deps", "--only-binary", ":all:", "--target", folder, "--python-version", python]
        command += [word for platform in platforms for word in ("--platform", platform)]
        command += ["--report", str(report), "-r", str(HERE / "serve.lock")]
        subprocess.run(command, check=True)
        found = json.loads(report.read_text())["install"]
    return {
        _named(each["metadata"]): each["download_info"]["archive_info"]["hashes"]["sha256"] for each in found
    }


def _named(metadata: dict[str, str]) -> str:
    return f"{canonicalize_name(metadata['name'])}=={metadata['version']}"


def main() -> None:
    hashes: dict[str, set[str]] = {}
    for python in PYTHONS:
        for machine in MACHINES:
            for name, sha256 in wanted(python, machine).items():
                hashes.setdefault(name, set()).add(sha256)
    lines = [
        " ".join([name, *(f"--hash=sha256:{each}" for each in sorted(found))]) + "\n"
        for name, found in sorted(hashes.items())
    ]
    (HERE / "serve.hashes").write_text(HEADER + "".join(lines))
    print(f"serve.hashes: {len(lines)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
