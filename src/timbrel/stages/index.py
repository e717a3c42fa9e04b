"""Stage ``index``: the pitch-conditioned index over the library's stage-1 vectors, how its styles are compared, and the
scales of its renders.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from timbrel.library import hubness
from timbrel.library.build import build_index
from timbrel.library.styles import Styles, load_whitening, save_whitening
from timbrel.library.tables import read_patches, read_renders
from timbrel.params import Index, Params
from timbrel.tracking import Record

TOLD_EVERY_SECONDS = 3.0


def run(params: Params, root: Path, record: Record) -> None:
    """data/library, data/encoder -> data/index: index.json, the data file it names, scales.npy; and whitening.npy where
    there is a style network.
    """
    library = root / "data" / "library"
    index_library(
        library,
        root / "data" / "index",
        params.index,
        window=params.library.window_semitones,
        stage1_share=params.library.stage1_share,
        whitening=load_whitening(root / "data" / "encoder"),
        record=record,
    )


def index_library(
    library: Path,
    target: Path,
    settings: Index,
    *,
    window: int,
    stage1_share: float,
    whitening: np.ndarray | None,
    record: Record,
) -> None:
    """Index the library in a folder into ``target``; ``window``, ``stage1_share`` and ``whitening`` are those of
    searches.
    """
    index = build_index(library, plan=settings.plan, target_recall=settings.target_recall)
    index.save(target)
    stage2 = np.load(library / "stage2.npy", allow_pickle=False)
    if whitening is not None:
        save_whitening(target, whitening)
    sizes = [len(index.ids_within(pitch, 0)) for pitch in index.semitones]
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > TOLD_EVERY_SECONDS or done == total:
            told = time.monotonic()
            record.metrics({"scales_done": float(done), "scales_total": float(total)}, step=done)

    patches = read_patches(library / "patches.csv")
    renders = read_renders(library / "renders.csv", patches)
    number = {patch.patch_id: row for row, patch in enumerate(patches)}
    scales = hubness.library_scales(
        index,
        renders,
        patch_of=np.array([number[render.patch_id] for render in renders]),
        stage1=np.load(library / "stage1.npy", allow_pickle=False),
        stage2=Styles(stage2, whitening),
        window=window,
        stage1_share=stage1_share,
        progress=progress,
    )
    hubness.save_scales(target, scales)
    record.metrics(
        {
            "vectors": float(len(index)),
            "dimension": float(index.dimension),
            "partitions": float(len(sizes)),
            "largest_partition": float(max(sizes, default=0)),
            "unpitched": float(len(index) - sum(sizes)),
            "least_scale": float(scales.min()),
            "largest_scale": float(scales.max()),
            "scanned": float(sum(plan.kind == "flat" for plan in index.plans.values())),
        }
    )
