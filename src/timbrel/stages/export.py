"""Stage ``export``: the trained networks as ONNX files, each with where it comes from."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from timbrel.codec import kinds
from timbrel.encoders import export as encoder_export
from timbrel.encoders import published_search, storage
from timbrel.files import atomic_write, sha256_of
from timbrel.library.manifest import MODELS
from timbrel.notes.noteset import publish_folder
from timbrel.params import Params
from timbrel.pgesam import export as pgesam_export
from timbrel.pgesam.generator import load_generator
from timbrel.pgesam.vae import load_vae
from timbrel.tracking import Record

# The trained weights behind each model but the codec's two, and what they are.
SOURCES = {
    "timbre_encoder": ("encoder", "contrastive timbre encoder"),
    "map_encoder": ("vae", "pGESAM VAE, encoder"),
    "generator": ("generator", "pGESAM Transformer generator"),
}
LICENCE = "CC0-1.0"


def run(params: Params, root: Path, record: Record) -> None:
    """data/codec, data/encoder, data/vae, data/generator -> data/models: five ONNX files and models.json."""
    data = root / "data"
    target = data / "models"
    built = Path(tempfile.mkdtemp(prefix=".models.", dir=data))
    kinds.export_codec(data / "codec", built)
    published = published_search.described(data / "encoder")
    encoder = (
        published_search.open_published(*(source.name for source in published))
        if published
        else storage.load(data / "encoder")
    )
    difference = encoder_export.export(encoder, built / "timbre_encoder.onnx")
    vae, _ = load_vae(data / "vae")
    pgesam_export.export_map_encoder(vae, built / "map_encoder.onnx")
    generator, facts = load_generator(data / "generator")
    pgesam_export.export_generator(generator, built / "generator.onnx")

    # Lowest and highest velocity that the generator has learnt.
    description: dict[str, Any] = {"velocities": facts["velocities"]}
    codec_source, codec_licence = kinds.provenance(data / "codec")
    for name in MODELS:
        source, licence = codec_source, codec_licence
        if name == "timbre_encoder" and published:
            source, licence = (
                _joined([getattr(each, key) for each in published]) for key in ("told", "licence")
            )
        elif name in SOURCES:
            folder, what = SOURCES[name]
            digest = sha256_of(data / folder / f"{folder}.safetensors")
            origin = storage.describe(data / folder)["origin"] if folder == "encoder" else {}
            made = origin.get("source", "trained by this pipeline")
            source = f"{what}, {made}; {folder}.safetensors sha256 {digest}"
            licence = origin.get("licence", LICENCE)
        description[name] = {"source": source, "licence": licence}
        record.metrics({f"{name}_bytes": (built / f"{name}.onnx").stat().st_size})
    record.metrics({"timbre_encoder_difference": difference})
    with atomic_write(built / "models.json") as handle:
        handle.write((json.dumps(description, indent=2) + "\n").encode())
    publish_folder(built, target)


def _joined(parts: list[str]) -> str:
    """Of both stages, once where they say the same."""
    return "; ".join(dict.fromkeys(parts))
