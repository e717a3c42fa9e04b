"""Damaged recordings for a running service: does it crash, does it answer with a 5xx?

    python benchmarks/fuzz_uploads.py [--uploads 10000] [--seed 11]

Starts `timbrel serve` on free ports over the bundle in this checkout, sends that many mutated real files (WAV, FLAC,
OGG, MP3, AIFF, CAF, W64, AU) to /search, every twentieth to /locate, and writes reports/fuzz.json. Exit status 1 if a
worker or Triton died, if there was a 5xx, or if an error came without its envelope.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.mutated import mutated, whole_files  # noqa: E402
from support.serving import Serving  # noqa: E402

BROKEN_DOWN = "its decoder broke down"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--engine", default="auto", help="TIMBREL_ENGINE of the service")
    parser.add_argument("--output", type=Path, default=Path("reports/fuzz.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serving = Serving.start(ROOT / "bundle", Path(folder), engine=options.engine, workers="2")
        try:
            serving.wait_ready()
            report = fuzz(serving, options.uploads, options.seed, options.clients)
        finally:
            serving.stop()
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return int(bool(report["crashes"] or report["server_errors"] or report["without_envelope"]))


def fuzz(serving: Serving, uploads: int, seed: int, clients: int) -> dict[str, object]:
    """Send the uploads; what became of them, and of the processes."""
    files = whole_files()
    before = _lasting(serving)
    outcomes: collections.Counter[str] = collections.Counter()
    bad: list[str] = []
    began = time.monotonic()

    def send(share: int) -> None:
        with serving.client() as http:
            for number in range(share, uploads, clients):
                outcome, problem = _ask(http, number, mutated(files, random.Random(f"{seed}/{number}")))
                outcomes[outcome] += 1
                if problem:
                    bad.append(f"{number}: {problem}")
                if number % 500 == 0:
                    print(
                        f"{number} of {uploads}, {time.monotonic() - began:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(send, share) for share in range(clients)]:
            done.result()
    died = [str(each) for each in before if not each.is_running() or each.status() == psutil.STATUS_ZOMBIE]
    return {
        "uploads": uploads,
        "seed": seed,
        "engine": next(line for line in serving.lines() if "models run" in line or "Triton: gRPC" in line),
        "crashes": len(died),
        "server_errors": sum(count for name, count in outcomes.items() if name.startswith("5")),
        "without_envelope": sum(count for name, count in outcomes.items() if name.endswith("no envelope")),
        "decoders_broken_down": sum(BROKEN_DOWN in each for each in bad),
        "outcomes": dict(sorted(outcomes.items())),
        "looked_at": bad[:20],
        "seconds": round(time.monotonic() - began),
    }


def _ask(http: httpx.Client, number: int, data: bytes) -> tuple[str, str]:
    """Status and code of one upload; what is worth a look."""
    path = "/locate" if number % 20 == 0 else "/search"
    try:
        answer = http.post(path, files={"audio": ("clip", data)})
    except httpx.HTTPError as error:
        return "5xx: connection lost", repr(error)
    if answer.status_code == 200:
        return "200", ""
    try:
        error = answer.json()["error"]
        name = f"{answer.status_code} {error['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} no envelope", answer.text[:200]
    odd = answer.status_code >= 500 or BROKEN_DOWN in error["message"]
    return name, error["message"] if odd else ""


def _lasting(serving: Serving) -> list[psutil.Process]:
    """The processes that are to live as long as the service: all but the decoders."""
    return [each for each in serving.family() if "timbrel.serving.decoder_process" not in each.cmdline()]


if __name__ == "__main__":
    sys.exit(main())
