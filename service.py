"""The service as `bentoml build` and a built Bento find it; see bentofile.yaml. The code is src/timbrel/serving/."""

import sys
from pathlib import Path

from bentoml.images import Image

# A Bento carries the sources beside this file rather than an installed package.
sys.path.insert(0, str(Path(__file__).parent / "src"))

from timbrel.serving.service import TimbrelService

__all__ = ["TimbrelService"]

# BentoML's Dockerfile installs with uv, whichever is the newest, unless one is there. This one is dev.lock's, its
# wheels for x86-64 and 64-bit ARM by their SHA-256: it checks those of all the others.
_UV = (
    "uv==0.13.9"
    " --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"
    " --hash=sha256:ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375"
)
# No `distro` of BentoML's: each would add compilers and git, and every package here is a wheel.
TimbrelService.image = Image(distro="none", base_image="python:3.11.14-slim-bookworm").run(
    f"echo '{_UV}' >/tmp/uv.txt"
    " && pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: -r /tmp/uv.txt && rm /tmp/uv.txt"
)
