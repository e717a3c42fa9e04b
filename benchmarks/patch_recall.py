"""Does a note of a library patch, at another velocity and with light noise, find its patch?

    python benchmarks/patch_recall.py [--params params.yaml]

Measures the bundle in this checkout and writes reports/search.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from timbrel.errors import TimbrelError
from timbrel.params import load
from timbrel.stages.evaluate import open_engine, search_report


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
            report = search_report(engine, params, Path.cwd())
    except TimbrelError as error:
        print(f"patch_recall: {error.message}", file=sys.stderr)
        return 1
    for name, condition in report["conditions"].items():
        print(name, json.dumps(condition["recall"], indent=2))
    print("wrote reports/search.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
