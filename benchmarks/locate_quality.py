"""Does the note synthesised at the place of a recording sound like the recording?

    python benchmarks/locate_quality.py [--pitches 50 60 70] [--draws 12]

Measures the bundle in this checkout on the held-out notes of data/notes, and writes reports/locate.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from timbrel.engine.engine import Engine
from timbrel.engine.onnx_models import OnnxModels
from timbrel.errors import TimbrelError
from timbrel.evaluation import locate
from timbrel.evaluation.report import write_report
from timbrel.library.bundle import Bundle
from timbrel.notes.noteset import NoteSet
from timbrel.stages.evaluate import Progress


def main() -> int:
    """Exit status 1, with one line, when something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pitches", type=int, nargs="+", default=[50, 60, 70])
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--root", type=Path, default=Path(), help="The checkout whose data and bundle are read."
    )
    parser.add_argument("--output", type=Path, default=Path("reports/locate.json"))
    options = parser.parse_args()
    settings = locate.LocateSettings(pitches=tuple(options.pitches), draws=options.draws, seed=options.seed)
    refining: list[float] = []

    def observe(stage: str, seconds: float) -> None:
        if stage == "refine":
            refining.append(seconds)

    try:
        notes = NoteSet.open(options.root / "data" / "notes")
        bundle = Bundle.open(options.root / "bundle")
        paths = {name: bundle.path(name) for name in bundle.manifest.models}
        engine = Engine(bundle, OnnxModels(paths, threads=options.threads), observe=observe)
        report = {"command": "python benchmarks/locate_quality.py"} | locate.measure(
            engine, notes, settings, banks=options.root / "banks", progress=Progress()
        )
        report["steadiness"] = locate.steadiness(
            engine, notes, pitch=settings.pitches[0], seed=settings.seed, progress=Progress()
        )
    except TimbrelError as error:
        print(f"locate_quality: {error.message}", file=sys.stderr)
        return 1
    write_report(options.output, report)
    for way, figures in report["results"].items():
        print(
            way, json.dumps({name: value for name, value in figures.items() if name != "by_family"}, indent=2)
        )
    print(f"median seconds of one refinement here: {statistics.median(refining):.3f}")
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
