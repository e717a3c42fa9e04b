"""Stage ``index``: the pitch-conditioned index over the library's stage-1 vectors."""

from __future__ import annotations

from pathlib import Path

from timbrel.library.build import build_index
from timbrel.params import Params
from timbrel.tracking import Record


def run(params: Params, root: Path, record: Record) -> None:
    """data/library -> data/index: index.json and the data file it names."""
    target = root / "data" / "index"
    index = build_index(root / "data" / "library")
    index.save(target)
    sizes = [len(index.ids_within(pitch, 0)) for pitch in index.semitones]
    record.metrics(
        {
            "vectors": float(len(index)),
            "dimension": float(index.dimension),
            "partitions": float(len(sizes)),
            "largest_partition": float(max(sizes, default=0)),
            "unpitched": float(len(index) - sum(sizes)),
        }
    )
