"""A disk that fills up while a bundle is written: a real one of a few megabytes, or where no disk may be mounted a
bound on the size of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.tiny_bundle import tiny_bundle_folder

from timbrel.library.manifest import read_manifest

# Runs in a process of its own: what it mounts and what it may write ends with it.
PROGRAM = """
import json, resource, shutil, subprocess, sys
from pathlib import Path

disks, source, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
from support.tiny_bundle import bundle_parts
from timbrel.errors import BundleError
from timbrel.library.bundle import Bundle

sizes = [path.stat().st_size for path in source.rglob("*") if path.is_file()]
unbounded = resource.getrlimit(resource.RLIMIT_FSIZE)
told = []
# Room for none of it, and for all but the last files.
for share in (0.02, 0.5, 0.97):
    disk = disks / str(share)
    disk.mkdir()
    if how == "disk":
        taken = sum(-(-size // 4096) * 4096 for size in sizes)  # a disk gives whole pages
        options = f"size={int((1 + share) * taken)}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    shutil.copytree(source, disk / "bundle")
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * max(sizes)), unbounded[1]))
    said = ""
    try:
        Bundle.build(disk / "bundle", **bundle_parts(source.with_name("bundle.parts")))
    except BundleError as error:
        said = error.message
    resource.setrlimit(resource.RLIMIT_FSIZE, unbounded)
    left = sorted(path.name for path in disk.iterdir())
    told.append({"at": str(disk / "bundle"), "said": said, "left": left, "id": Bundle.open(disk / "bundle").id})
print(json.dumps(told))
"""


def _mountable() -> bool:
    """Whether a process may mount a disk where nobody else sees it."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=4096 tmpfs /mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_the_former_bundle_stays_whole_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    source = tiny_bundle_folder()
    prefix, how = (["unshare", "--mount"], "disk") if _mountable() else ([], "limit")
    paths = [str(Path(__file__).parents[1]), *sys.path]
    result = subprocess.run(
        [*prefix, sys.executable, "-c", PROGRAM, str(tmp_path), str(source), how],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    for told in json.loads(result.stdout):
        assert told["said"].startswith(f"the bundle cannot be written to {told['at']} (")
        assert "make room there" in told["said"]
        assert "\n" not in told["said"]
        assert told["left"] == ["bundle"]
        assert told["id"] == read_manifest(source / "manifest.json").id
