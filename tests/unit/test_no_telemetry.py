"""What Timbrel computes with tells nobody what is done with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.tiny_bundle import tiny_bundle_folder

RUN = """
import os, sys
from pathlib import Path
import numpy as np
from timbrel.engine.onnx_models import OnnxModels
models = OnnxModels({"timbre_encoder": Path(sys.argv[1])})
models.run("timbre_encoder", {"audio": np.zeros((1, 72_000), dtype=np.float32)})
models.close()
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def test_onnxruntime_leaves_no_id_and_opens_no_uploader(tmp_path: Path) -> None:
    # In CI and in tests onnxruntime tells nothing by itself.
    dropped = (
        "CI",
        "GITHUB_ACTIONS",
        "PYTEST_CURRENT_TEST",
        "PYTEST_VERSION",
        "ORT_DISABLE_TELEMETRY",
        "XDG_CACHE_HOME",
    )
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    model = tiny_bundle_folder() / "models" / "timbre_encoder.onnx"
    said = subprocess.run(
        [sys.executable, "-c", RUN, str(model)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "1"
    # Without the variable: .cache/Microsoft/DeveloperTools/.onnxruntime/deviceid, and what waits to be sent.
    assert list(tmp_path.rglob("*")) == []
