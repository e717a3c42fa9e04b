"""Stage ``pgesam``: both of its networks measured, on embeddings and on decoded audio.

data/notes + data/embeddings + data/codec + data/vae + data/generator → reports/pgesam.json, reports/figures.
Where ``reports/speed.json`` stands (``python benchmarks/generator_speed.py``), its figures go into the report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timbrel.codec.plots import spectrogram_pair
from timbrel.evaluation.listening import load
from timbrel.evaluation.pgesam import Settings, measure
from timbrel.evaluation.pictures import draw_instruments, save_png
from timbrel.evaluation.report import write_report
from timbrel.evaluation.velocity import Struck, struck
from timbrel.evaluation.written import Trained, write
from timbrel.notes.noteset import NoteSet
from timbrel.pgesam.dataset import LOWEST_PITCH, map_notes
from timbrel.pgesam.generator import load_generator
from timbrel.pgesam.vae import load_vae
from timbrel.pgesam.vae_training import encode
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking.record import flatten
from timbrel.training import pick_device

if TYPE_CHECKING:
    from timbrel.params import Params
    from timbrel.tracking import Record

# What of the report becomes metrics of the run: the rest is detail.
SHOWN = (
    "v_inst_over_v_pitch", "vae_pitch_accuracy", "pitch_accuracy_head", "pitch_accuracy_f0", "embedding_mse", "lsd_db",
    "f0_kept", "realtime_factor", "cache_speedup", "own_nearer", "alarms", "random_notes",
)  # fmt: skip


def run(params: Params, root: Path, record: Record) -> None:
    """Write the report and both pictures; the headline figures are the run's metrics."""
    chosen = params.pgesam_evaluation
    for name in ("notes", "embeddings", "codec", "vae", "generator"):
        record.dataset(name, root / "data" / name)
    note_set = NoteSet.open(root / "data" / "notes")
    trained = _trained(root, note_set)
    settings = Settings(
        train_instruments=chosen.train_instruments,
        sampled_notes=chosen.sampled_notes,
        seeds=chosen.seeds,
        family_neighbours=chosen.family_neighbours,
        walks=chosen.walks,
        walk_steps=chosen.walk_steps,
        walk_seconds=chosen.walk_seconds,
        random_notes=chosen.random_notes,
    )
    told = every_few_seconds(record)
    measured = measure(
        trained,
        note_set.audio,
        root / "data" / "codec",
        settings,
        struck=_struck(trained, note_set),
        say=lambda text: print(f"[pgesam] {text}", flush=True),
        progress=lambda done, total: told("heard", done, total),
    )
    report = measured.report | _speed(root / "reports" / "speed.json")
    target = root / "reports" / "pgesam.json"
    write_report(target, report, significant=True)
    numbers = {
        name: float(value)
        for name, value in flatten(report).items()
        if isinstance(value, int | float) and any(part in SHOWN for part in name.split("."))
    }
    record.metrics(numbers)
    record.artifact(target)

    pictures = root / "reports" / "figures"
    places = draw_instruments(trained.places, trained.instrument_families, trained.instrument_splits)
    pair = _pair(trained, note_set, measured.typical, root)
    for name, figure in (("map", places), ("spectrogram_pair", pair)):
        record.figure(name, figure)
        save_png(figure, pictures / f"{name}.png")


def _trained(root: Path, note_set: NoteSet) -> Trained:
    embeddings = np.load(root / "data" / "embeddings" / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    notes = map_notes(note_set.notes)
    device = pick_device()
    vae = load_vae(root / "data" / "vae")[0].to(device)
    generator = load_generator(root / "data" / "generator")[0].to(device)
    encoded = encode(vae, embeddings, notes.row, device)
    return Trained(
        vae=vae, generator=generator, notes=notes, embeddings=embeddings, encoded=encoded, device=device
    )


def _struck(trained: Trained, note_set: NoteSet) -> Struck:
    """The held-out notes of other velocities, written."""
    notes = map_notes(note_set.notes, velocity=None)
    return struck(trained, notes, np.array([note_set.notes[row].source for row in notes.row]))


def _pair(trained: Trained, note_set: NoteSet, entry: int, root: Path) -> Any:
    """A held-out note beside what the generator makes of its map point and pitch."""
    notes = trained.notes
    note = note_set.notes[int(notes.row[entry])]
    written = write(
        trained, trained.encoded.mu[[entry]], notes.pitch[[entry]], frames=trained.generator.shape.frames
    )
    generated = load(root / "data" / "codec").decode(written[0])
    real = note_set.float_audio([note.row])[0][: len(generated)]
    title = (
        f"{note.name} ({note.family}, held out), MIDI {LOWEST_PITCH + int(notes.pitch[entry])}: the real note"
    )
    return spectrogram_pair(title, real, generated, second="generated at its point and pitch")


def _speed(path: Path) -> dict[str, Any]:
    """``speed`` of the benchmark's report, where there is one."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {"speed": content.get("speed", content)}
