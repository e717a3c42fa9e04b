"""A complete small bundle, built in seconds by the real library code: real index, real files, models of
tiny_models.

Fourteen patches: twelve additive tones at places (x, y) of the map, one that sounds an octave above the key
pressed, and one of noise, without a pitch. Each is rendered at the keys 48, 54, 60, 66 and 72. At the bundle's
fold distance Tone 3 is the same sound as Tone 2 (.0044 apart; the next two .0050). Octave Up lies in a bank of its
own, and its pitch is less sure.
"""

from __future__ import annotations

import atexit
import base64
import csv
import hashlib
import json
import math
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from support.tiny_models import tone, write_tiny_models
from timbrel.codec.runtime import MagnitudeCodecRuntime
from timbrel.engine.onnx_models import OnnxModels
from timbrel.files import sha256_of
from timbrel.library.build import build_index, build_library
from timbrel.library.bundle import Bundle, ModelSource
from timbrel.library.describe import describe_model
from timbrel.library.manifest import DataSource, Provenance, SearchEntry
from timbrel.notes import dx7
from timbrel.notes.noteset import Note, NoteSetWriter

KEYS = (48, 54, 60, 66, 72)
PLACES = tuple((x, y) for x in (-0.6, -0.2, 0.2, 0.6) for y in (-0.6, 0.0, 0.6))
FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)
COLUMNS = (
    "patch_id", "name", "bank", "family", "engine", "split", "offset_semitones", "payload", "sha256",
)  # fmt: skip


@cache
def tiny_bundle_folder() -> Path:
    """One tiny bundle for the whole test run; read it, never change it."""
    folder = Path(tempfile.mkdtemp(prefix="timbrel-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_tiny_bundle(folder / "bundle").close()
    return folder / "bundle"


def build_tiny_bundle(folder: Path, *, variant: int = 0, in_tune: bool = True) -> Bundle:
    """Build the bundle at ``folder``; what it was built from stays beside it, in ``<folder>.parts``.

    Another ``variant`` has other models, and answers every question that asks them otherwise; for ``in_tune`` see
    ``tiny_models``.
    """
    parts = folder.with_name(folder.name + ".parts")
    write_tiny_patches(parts / "patches")
    paths = write_tiny_models(parts / "models", variant=variant, in_tune=in_tune)
    models = OnnxModels(paths)
    build_library(
        parts / "patches",
        parts / "library",
        models.run,
        MagnitudeCodecRuntime(models),
        encoder=sha256_of(paths["timbre_encoder"]),
        preview_seconds=0.5,
        preview_pitch=60,
    )
    models.close()
    build_index(parts / "library").save(parts / "index")
    return Bundle.build(folder, **bundle_parts(parts))


def bundle_parts(parts: Path) -> dict[str, Any]:
    """What ``Bundle.build`` wants, from the folder that ``build_tiny_bundle`` leaves beside a bundle."""
    models = {
        path.stem: ModelSource(
            path=path, entry=describe_model(path, source="worked out for tests", licence="CC0-1.0")
        )
        for path in (parts / "models").glob("*.onnx")
    }
    return {
        "models": models,
        "library": parts / "library",
        "index": parts / "index",
        "pitches": range(48, 73),
        "velocities": range(40, 128),
        "search": SearchEntry(candidates=100, window_semitones=1, fold_distance=0.0047),
        "data": [DataSource(name="tones", source="additive synthesis", licence="CC0-1.0")],
        "provenance": Provenance(git_revision="0" * 40, params_sha256="0" * 64),
    }


def write_tiny_patches(folder: Path) -> None:
    """A NoteSet with its patches.csv, as the patches stage makes them."""
    lines: list[dict[str, object]] = []
    with NoteSetWriter(folder) as writer:
        for number, (x, y) in enumerate(PLACES):
            _add(writer, lines, number, name=f"Tone {number + 1}", place=(x, y))
        _add(writer, lines, 12, name="Octave Up", place=(0.0, 0.3), offset=12)
        _add(writer, lines, 13, name="Hiss", place=None)
        with writer.path("patches.csv").open("w", newline="", encoding="utf-8") as handle:
            table = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(lines)


def _add(
    writer: NoteSetWriter,
    lines: list[dict[str, object]],
    number: int,
    *,
    name: str,
    place: tuple[float, float] | None,
    offset: int = 0,
) -> None:
    family = FAMILIES[number % len(FAMILIES)]
    engine, payload = _payload(number, name)
    digest = hashlib.sha256(payload.encode()).hexdigest()
    patch_id = f"{'dx7' if engine == 'dx7' else 'sf2'}-{digest[:12]}"
    for key in KEYS:
        if place is None:
            audio = np.random.default_rng(key).uniform(-0.8, 0.8, 96_000).astype(np.float32)
        else:
            audio = tone(key + offset, *place)
        note = Note(
            row=0, note_id=f"{patch_id}-{key:03d}-100", instrument=patch_id, name=name, family=family,
            source="dx7" if engine == "dx7" else "soundfont", pitch=key, velocity=100, split="library",
            f0_midi=math.nan if place is None else float(key + offset),
            f0_confidence=math.nan if place is None else 0.7 if offset else 0.98,
        )  # fmt: skip
        writer.add(note, audio)
    values = (
        patch_id,
        name,
        "spare" if offset else "tiny",
        family,
        engine,
        "library",
        offset,
        payload,
        digest,
    )
    lines.append(dict(zip(COLUMNS, values, strict=True)))


def _payload(number: int, name: str) -> tuple[str, str]:
    """The last patch is a soundfont preset, the others are DX7 voices."""
    if number == 13:
        preset = {"soundfont": "tiny.sf2", "sha256": "0" * 64, "bank": 0, "program": 122}
        return "soundfont", base64.b64encode(json.dumps(preset).encode()).decode("ascii")
    voice = dx7.Voice(name=name[:10], algorithm=number + 1, operators=(dx7.Operator(output=90),) * 6)
    return "dx7", base64.b64encode(dx7.to_packed(voice)).decode("ascii")
