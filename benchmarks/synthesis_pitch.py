"""Does a synthesised note have the pitch that was asked for, and is it a clean note?

    python benchmarks/synthesis_pitch.py [--params params.yaml]

Measures the bundle in this checkout and writes reports/synthesis.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from timbrel.errors import TimbrelError
from timbrel.params import load
from timbrel.stages.evaluate import open_engine, synthesis_report


def main() -> int:
    """Exit status 1, with one line, when something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    options = parser.parse_args()
    try:
        params = load(options.params)
        with open_engine(Path("bundle")) as engine:
            report = synthesis_report(engine, params, Path.cwd())
    except TimbrelError as error:
        print(f"synthesis_pitch: {error.message}", file=sys.stderr)
        return 1
    print(json.dumps(report["results"], indent=2))
    print("wrote reports/synthesis.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
