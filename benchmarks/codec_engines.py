"""Does the codec keep pitch and spectrum of engines that it was never trained on?

    python benchmarks/codec_engines.py [--codec weights/codec] [--patches 60] [--seed 1]

Renders patches of Vital (`pip install vita`), amsynth and whysynth (`apt install amsynth whysynth`), four keys each,
codes and decodes them on one core, and writes reports/codec.json. At least two of the engines have to be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from timbrel.codec.in_process import TorchModels
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.codec.storage import describe, load_codec
from timbrel.errors import DataError, TimbrelError
from timbrel.evaluation.codec_engines import measure, shortcomings
from timbrel.evaluation.report import write_report
from timbrel.notes.unseen_engines import ENGINES, patches, render_unseen
from timbrel.pitch.estimate import estimate

REPORT = Path("reports/codec.json")


def main() -> int:
    """Exit status 1, with a line each, when something is missing or the figures fall short."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", type=Path, default=Path("weights/codec"))
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        codec = MagnitudeCodecRuntime(TorchModels(load_codec(options.codec)))
        sounds: dict[str, list[np.ndarray]] = {}
        kept: dict[str, int] = {}
        for engine in ENGINES:
            notes = render_unseen(patches(engine, options.patches, seed=options.seed))
            if notes:
                sounds[engine] = [note.audio.astype(np.float32) / np.float32(32_768.0) for note in notes]
                kept[engine] = len({note.patch for note in notes})
        if len(sounds) < 2:
            raise DataError(
                f"of {', '.join(ENGINES)} only {', '.join(sounds) or 'none'} is installed: two are needed"
            )
    except TimbrelError as error:
        print(f"codec_engines: {error.message}", file=sys.stderr)
        return 1
    # Decoding is promised on one core.
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = measure(codec, sounds, lambda sound: estimate(sound, 24_000).midi)
    lacks = shortcomings(figures)
    write_report(
        REPORT,
        {
            "command": f"python benchmarks/codec_engines.py --codec {options.codec} --patches {options.patches} "
            f"--seed {options.seed}",
            "weights_sha256": describe(options.codec)["sha256"],
            "patches_tried": options.patches,
            "patches": kept,
            **figures,
            "shortcomings": lacks,
        },
    )
    print(json.dumps({name: figures[name] for name in figures if name != "engines"}, indent=2))
    for line in lacks:
        print(f"codec_engines: {line}", file=sys.stderr)
    print(f"wrote {REPORT}")
    return 1 if lacks else 0


if __name__ == "__main__":
    raise SystemExit(main())
