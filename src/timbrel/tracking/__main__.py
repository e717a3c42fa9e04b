"""``python -m timbrel.tracking``: open MLflow's page on the store of this checkout (`make mlflow`).

``settle`` ends runs whose process is gone; a pipeline's first stage leaves it behind to wait for DVC's end.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from timbrel.tracking.dvc_process import Process
from timbrel.tracking.settling import settle
from timbrel.tracking.store import artifact_root, tracking_uri


def main(arguments: list[str] | None = None) -> None:
    """The page's server takes the place of this process."""
    parser = argparse.ArgumentParser(
        prog="python -m timbrel.tracking", description="The runs of this checkout."
    )
    parser.add_argument("--port", type=int, default=5000, help="of the page (default: %(default)s)")
    commands = parser.add_subparsers(dest="command")
    settling = commands.add_parser("settle", help="end the runs whose process is gone")
    settling.add_argument("--after", type=Process.parse, help="first wait until this process has ended")
    settling.add_argument("--workspace", type=Path, help="where it ran")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    if options.command == "settle":
        settle(root, options.after, options.workspace)
        return
    settle(root)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = (
        "false"  # more processes, for what Timbrel does not use
    )
    server = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    store = ["--backend-store-uri", tracking_uri(root), "--default-artifact-root", artifact_root(root)]
    os.execv(sys.executable, [*server, "--port", str(options.port), *store])


if __name__ == "__main__":
    main()
