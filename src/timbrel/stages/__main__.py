"""``python -m timbrel.stages <name>``: run one stage of the pipeline in this checkout."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from timbrel.errors import TimbrelError
from timbrel.params import Params, load
from timbrel.stages import STAGES, TRAININGS, readiness, together
from timbrel.stages.pictures import draw
from timbrel.tracking import stage_run
from timbrel.tracking.figures import known_of
from timbrel.tracking.registry import Registry

# The last stage: before it, nobody knows how good the bundle is.
MEASURES_THE_BUNDLE = "evaluate"


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
        readiness.require_weights(params, root)
        if (processes := together.processes_of(stage, params)) > 1:
            together.run(stage, options.params, processes)
            return 0
        module = importlib.import_module(f"timbrel.stages.{stage}")
        settings = params.model_dump(mode="json", include=set(STAGES[stage]))
        if together.stands_by(stage):
            module.run(params, root, together.Bystander())
            return 0
        with stage_run(stage, settings, root, curve=stage in TRAININGS) as record:
            print(f"[{stage}] begins", flush=True)
            module.run(params, root, record)
            for name, figure in draw(stage, root, record.final).items():
                record.figure(name, figure)
        print(f"[{stage}] done in {record.seconds:.0f} s", flush=True)
        if stage == MEASURES_THE_BUNDLE:
            _register(params, root, record.run_id)
    except TimbrelError as error:
        print(f"{stage}: {error.message}", file=sys.stderr)
        return 1
    return 0


def _register(params: Params, root: Path, run_id: str) -> None:
    """Keep the bundle that was built and measured, as the candidate. The stage is done, and nothing here undoes it."""
    try:
        known = known_of(root / "bundle", root, params, run_id)
        version, fresh = Registry.open(root).register(root / "bundle", known)
    except (TimbrelError, OSError) as error:
        print(
            f"WARNING: the bundle is not registered ({error}): `timbrel bundle register` does it",
            file=sys.stderr,
        )
        return
    print(f"{version.title} is {'registered' if fresh else 'registered already'}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
