"""``python -m timbrel.stages <name>``: run one stage of the pipeline in this checkout."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from timbrel.errors import TimbrelError
from timbrel.params import load
from timbrel.stages import STAGES, TRAININGS
from timbrel.tracking import stage_run


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit status: 1 with one line on stderr for anything the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m timbrel.stages",
        description="Run one stage of the pipeline in the current folder. `dvc repro` runs them all, in order.",
    )
    parser.add_argument("stage", choices=STAGES, metavar="stage", help=", ".join(STAGES))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    # So that a stage that is told to end leaves its run marked and its temporary files removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    stage, root = options.stage, Path.cwd()
    try:
        params = load(options.params)  # the whole file, before any work
        module = importlib.import_module(f"timbrel.stages.{stage}")
        settings = params.model_dump(mode="json", include=set(STAGES[stage]))
        with stage_run(stage, settings, root, curve=stage in TRAININGS) as record:
            print(f"[{stage}] begins", flush=True)
            module.run(params, root, record)
        print(f"[{stage}] done in {record.seconds:.0f} s", flush=True)
    except TimbrelError as error:
        print(f"{stage}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
