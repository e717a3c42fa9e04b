"""The service as `bentoml build` and a built Bento find it; see bentofile.yaml. The code is src/timbrel/serving/."""

import sys
from pathlib import Path

# A Bento carries the sources beside this file rather than an installed package.
sys.path.insert(0, str(Path(__file__).parent / "src"))

from timbrel.serving.service import TimbrelService

__all__ = ["TimbrelService"]
