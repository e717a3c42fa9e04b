"""Stage ``bundle``: models, library and index become the one folder that serving reads."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from timbrel.errors import DataError
from timbrel.library.build import MAP_PITCHES
from timbrel.library.bundle import Bundle, ModelSource
from timbrel.library.describe import describe_model
from timbrel.library.manifest import MODELS, DataSource, Provenance, SearchEntry
from timbrel.params import Params
from timbrel.tracking import Record

OWN_VOICES = DataSource(
    name="FM voices of our own",
    source="seeded generator of DX7 voices (timbrel.notes.fm_banks), rendered with dexed-py",
    licence="CC0-1.0",
)
GENERAL_MIDI = DataSource(
    name="TimGM6mb.sf2",
    source="soundfont inside the pretty_midi wheel, trained on and not contained",
    licence="GPL-2.0-or-later by Debian's record, MIT by the wheel's",
)
NSYNTH = DataSource(
    name="NSynth", source="https://magenta.tensorflow.org/datasets/nsynth, trained on", licence="CC-BY-4.0"
)


def run(params: Params, root: Path, record: Record) -> None:
    """data/models, data/library, data/index -> bundle."""
    models = root / "data" / "models"
    try:
        described = json.loads((models / "models.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{models / 'models.json'} cannot be read; run the export stage") from error
    sources = {}
    for name in MODELS:
        path = models / f"{name}.onnx"
        sources[name] = ModelSource(path=path, entry=describe_model(path, **described[name]))
    bundle = Bundle.build(
        root / "bundle",
        models=sources,
        library=root / "data" / "library",
        index=root / "data" / "index",
        pitches=MAP_PITCHES,
        search=SearchEntry(
            candidates=params.library.candidates, window_semitones=params.library.window_semitones
        ),
        data=_data(params, root / "data" / "patches"),
        provenance=Provenance(git_revision=_revision(root), params_sha256=_digest(params)),
    )
    sizes = {name: entry.bytes for name, entry in bundle.manifest.files.items()}
    record.metrics(
        {
            "bytes": float(sum(sizes.values())),
            "patches": float(len(bundle.patches)),
            "renders": float(len(bundle.renders)),
            "map_radius": bundle.manifest.map.radius,
        }
    )
    record.artifact(root / "bundle" / "manifest.json")
    bundle.close()


def _data(params: Params, patches: Path) -> list[DataSource]:
    """What the models and the library were made from, as the settings have it."""
    used = [OWN_VOICES]
    if params.notes.nsynth is not None:
        used.append(NSYNTH)
    elif params.notes.general_midi:
        used.append(GENERAL_MIDI)
    own = "the user's own; its licence is the user's to know"
    used += [
        DataSource(name=Path(font).name, source=f"soundfont, {own}", licence=own)
        for font in params.notes.soundfonts
    ]
    report = json.loads((patches / "report.json").read_text(encoding="utf-8"))
    if report["tried"]["user"]:
        used.append(DataSource(name="banks", source=f"patches in banks/, {own}", licence=own))
    return used


def _revision(root: Path) -> str:
    """The commit that is checked out, "+" when the tree has changes; "unknown" outside Git."""
    try:
        revision = _git(root, "rev-parse", "HEAD")
        return revision + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _digest(settings: Params) -> str:
    """SHA-256 of all settings, in their canonical form."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
