"""Stage ``bundle``: models, library and index become the one folder that serving reads."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from timbrel.errors import DataError
from timbrel.library.bundle import Bundle, ModelSource
from timbrel.library.describe import describe_model
from timbrel.library.describing import MAP_PITCHES
from timbrel.library.manifest import MODELS, DataSource, Provenance, SearchEntry
from timbrel.library.model_card import FILE_NAME, TRAININGS, model_card
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
# Fonts that Debian packages; what other soundfonts allow is for their owner to know.
DEBIAN_FONTS = {
    "FluidR3_GM.sf2": DataSource(
        name="FluidR3_GM.sf2",
        source="soundfont of Debian's fluid-soundfont-gm, trained on and not contained",
        licence="MIT",
    ),
    "sf_GMbank.sf2": DataSource(
        name="sf_GMbank.sf2",
        source="soundfont of Debian's csound-soundfont, trained on and not contained",
        licence="public domain",
    ),
}
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
    data = _data(params, root / "data" / "notes", root / "data" / "patches")
    reports = _reports(root / "reports")
    if params.codec.weights is not None or params.codec.kind == "encodec":
        reports.pop("codec", None)  # it was not trained here, and its stage took no time worth telling
    card = model_card(models=sources, data=data, pitches=MAP_PITCHES, reports=reports)
    bundle = Bundle.build(
        root / "bundle",
        models=sources,
        library=root / "data" / "library",
        index=root / "data" / "index",
        pitches=MAP_PITCHES,
        velocities=range(described["velocities"][0], described["velocities"][1] + 1),
        search=SearchEntry(
            candidates=params.library.candidates,
            window_semitones=params.library.window_semitones,
            fold_distance=params.library.fold_distance,
            stage1_share=params.library.stage1_share,
        ),
        data=data,
        documents={FILE_NAME: card},
        provenance=Provenance(git_revision=_revision(root), params_sha256=_digest(params)),
    )
    sizes = {name: entry.bytes for name, entry in bundle.manifest.files.items()}
    record.metrics(
        {
            "bytes": float(sum(sizes.values())),
            "patches": float(len(bundle.patches)),
            "renders": float(len(bundle.renders)),
            "folded": float((bundle.leader_of != np.arange(len(bundle.patches))).sum()),
            "map_radius": bundle.manifest.map.radius,
        }
    )
    record.artifact(root / "bundle" / "manifest.json")
    bundle.close()


def _data(params: Params, notes: Path, patches: Path) -> list[DataSource]:
    """What the models and the library were made from: of the soundfonts named, those that were there."""
    used = [OWN_VOICES]
    own = "the user's own; its licence is the user's to know"
    if params.notes.nsynth is not None:
        used.append(NSYNTH)
    else:
        known = DEBIAN_FONTS | {GENERAL_MIDI.name: GENERAL_MIDI}
        used += [
            known.get(name) or DataSource(name=name, source=f"soundfont, {own}", licence=own)
            for name in _report(notes)["soundfonts"]
        ]
    if _report(patches)["tried"]["user"]:
        used.append(DataSource(name="banks", source=f"patches in banks/, {own}", licence=own))
    return used


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def _reports(folder: Path) -> dict[str, Any]:
    """What the stages before wrote about the models, by name; a report that is not there is left out."""
    paths = {"pgesam": folder / "pgesam.json"}
    paths |= {name: folder / "stages" / f"{name}.json" for name in TRAININGS}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()
    }


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
