"""Stage ``library``: every library render's vectors, every patch's place on the map and preview."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from timbrel.codec.runtime import ENCODER, codec_of
from timbrel.engine.onnx_models import OnnxModels
from timbrel.files import sha256_of
from timbrel.library.build import build_library
from timbrel.library.describe import describe_model
from timbrel.notes.noteset import publish_folder
from timbrel.params import Params
from timbrel.tracking import Record

MODELS = ("timbre_encoder", "codec_encoder", "map_encoder")
TOLD_EVERY_SECONDS = 3.0


def run(params: Params, root: Path, record: Record) -> None:
    """data/patches, data/models -> data/library: patches.csv, renders.csv, stage1.npy, stage2.npy, previews.zip."""
    settings = params.library
    record.dataset("patches", root / "data" / "patches")
    paths = {name: root / "data" / "models" / f"{name}.onnx" for name in MODELS}
    models = OnnxModels(paths, threads=0)  # onnxruntime's own choice: every core
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > TOLD_EVERY_SECONDS or done == total:
            told = time.monotonic()
            record.metrics({"renders_done": float(done), "renders_total": float(total)}, step=done)

    target = root / "data" / "library"
    built = Path(tempfile.mkdtemp(prefix=".library.", dir=target.parent))
    figures = build_library(
        root / "data" / "patches",
        built,
        models.run,
        codec_of(models, describe_model(paths[ENCODER], source="", licence="").inputs),
        encoder=sha256_of(paths["timbre_encoder"]),
        preview_seconds=settings.preview_seconds,
        preview_pitch=settings.preview_pitch,
        progress=progress,
    )
    models.close()
    publish_folder(built, target)
    record.metrics({name: float(value) for name, value in asdict(figures).items()})
