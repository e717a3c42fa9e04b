"""The pipeline's stages, in order, and the sections of params.yaml that each reads (as in dvc.yaml).

A stage is a thin module ``timbrel.stages.<name>`` with ``run(params, root, record)``: it reads its settings and the
folders before it, calls its room's pure code, and writes its own folder.
"""

from __future__ import annotations

STAGES: dict[str, tuple[str, ...]] = {
    "notes": ("seed", "notes"),
    "patches": ("seed", "patches"),
    "codec": ("seed", "codec"),
    "embeddings": ("embeddings",),
    "encoder": ("seed", "encoder"),
    "vae": ("seed", "hardware", "notes", "vae"),
    "generator": ("seed", "hardware", "generator"),
    "pgesam": ("pgesam_evaluation",),
    "export": (),
    "library": ("library",),
    "index": ("library", "index"),
    "bundle": ("notes", "codec", "library"),
    "evaluate": ("patches", "evaluation"),
}

# The stages whose steps are a training's curve; the others report steps only to show how far they are.
TRAININGS = ("codec", "encoder", "vae", "generator")
