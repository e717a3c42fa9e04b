"""The timbre encoder's own pipeline, ``pipelines/encoder``: a wider corpus, a teacher, and a longer training.

    python -m timbrel.stages.encoder_pipeline corpus     -> data/encoder_corpus: presets of further soundfonts
    python -m timbrel.stages.encoder_pipeline examples   -> data/encoder_examples: all sounds, and the teacher's targets
    python -m timbrel.stages.encoder_pipeline style      -> data/encoder_style: the style network's blocks
    python -m timbrel.stages.encoder_pipeline readout    -> data/encoder_readout: with its scales and principal axes
    python -m timbrel.stages.encoder_pipeline train      -> data/encoder_weights: the timbre network
    python -m timbrel.stages.encoder_pipeline ship       -> weights/encoder, which params.yaml's encoder.weights names

The teacher's file is needed for ``examples`` and ``style`` only (`timbrel weights fetch efficientat-mn04`). No output
of ``ship`` is DVC's: to the default pipeline the weights are an input, in Git, not something to rebuild.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from timbrel.encoders.batches import some_of_each
from timbrel.encoders.efficientat import Features, read_published
from timbrel.encoders.examples import (
    Example,
    hear,
    read_examples,
    read_pictures,
    with_variants,
    write_examples,
)
from timbrel.encoders.frontend import clip
from timbrel.encoders.storage import (
    SIDECAR,
    STYLE_SIDECAR,
    STYLE_WEIGHTS,
    WEIGHTS,
    describe_features,
    load_features,
    load_network,
    load_style,
    save,
    save_features,
    save_style,
)
from timbrel.encoders.style_network import WIDTH, StyleNetwork
from timbrel.encoders.style_picture import StylePicture, heard_frames
from timbrel.encoders.style_training import Settings as StyleSettings
from timbrel.encoders.style_training import standard, train_style, unexplained
from timbrel.encoders.timbre import Shape, build
from timbrel.encoders.training import Settings as TrainingSettings
from timbrel.encoders.training import train_encoder
from timbrel.notes.codec_corpus import training_rows
from timbrel.notes.collect import collect_notes
from timbrel.notes.noteset import Note, NoteSet, publish_folder
from timbrel.notes.plan import NotePlan
from timbrel.notes.recordings import find_recordings, read_recording
from timbrel.published import find
from timbrel.stages import apart
from timbrel.stages.encoder import validation
from timbrel.stages.encoder_settings import Settings, Taken
from timbrel.stages.progress import every_few_seconds
from timbrel.tracking import Record
from timbrel.training import pick_device, seed_everything

SETTINGS = Path("pipelines/encoder/params.yaml")
CORPUS = Path("data/encoder_corpus")
EXAMPLES = Path("data/encoder_examples")
STYLE = Path("data/encoder_style")
READOUT = Path("data/encoder_readout")
TRAINED = Path("data/encoder_weights")
SHIPPED = Path("weights/encoder")
TEACHER = "efficientat-mn04"
SOURCE = (
    "trained by pipelines/encoder of this repository on soundfont presets, generated DX7 voices (Dexed), synthetic "
    "tones and Debian's opl3-soundfont, lmms-common, sonic-pi-samples and hydrogen-drumkits (CC0, CC BY, CC BY-SA, GPL "
    "by sample; not contained), by contrast between them and after the style of EfficientAT mn04 (MIT)"
)
LICENCE = "CC0-1.0"
WATCHED = 256
"""Validation notes that the style network is compared with its teacher on."""
CALIBRATED = 6_144
"""Sounds that scales and axes are taken from."""
WHITENED = 8_192
"""Notes that the whitening is taken from."""
PLAYED = ("notes", "patches")
BATCH = 64
# Where the pitch of a recording would stand: far from all notes, near other recordings.
UNPITCHED = -100.0


def corpus(settings: Settings, root: Path, record: Record) -> None:
    """-> data/encoder_corpus, a NoteSet."""
    wanted = settings.corpus
    plan = NotePlan(
        pitches=wanted.pitches,
        velocity=wanted.velocity,
        velocity_notes=0,
        velocities=(1, 127),
        instruments_per_family=None,
        heldout_families=(),
        shares={"validation": 0.0, "test": 0.0},
    )
    report = collect_notes(
        root / CORPUS,
        plan,
        seed=wanted.seed,
        general_midi=False,
        soundfonts=wanted.soundfonts,
        max_presets=wanted.max_presets,
        fm_count=0,
        pitched_share=0.6,
        duplicate_db=1.0,
        progress=every_few_seconds(record),
    )
    record.metrics({count: float(report[count]) for count in ("instruments", "notes")})


def examples(settings: Settings, root: Path, record: Record) -> None:
    """data/{notes,patches,codec_corpus,encoder_corpus} and recordings -> data/encoder_examples."""
    sources = _sources(settings, root, record)
    target = root / EXAMPLES
    built = Path(tempfile.mkdtemp(prefix=".encoder_examples.", dir=target.parent))
    report = write_examples(
        built,
        sources,
        teacher_file=find(TEACHER),
        components=settings.examples.components,
        progress=every_few_seconds(record),
    )
    publish_folder(built, target)
    record.metrics({name: float(report[name]) for name in ("examples", "instruments", "variance_kept")})


Sources = dict[str, tuple[Callable[[int], np.ndarray], Sequence[Example]]]
Chosen = list[tuple[Callable[[int], np.ndarray], Example]]


def _sources(settings: Settings, root: Path, record: Record) -> Sources:
    """What is heard of each source, and how to get at its sounds."""
    folders = {
        "notes": root / "data" / "notes",
        "patches": root / "data" / "patches",
        "wide": root / "data" / "codec_corpus" / "wide",
        "synthetic": root / "data" / "codec_corpus" / "synthetic",
        "presets": root / CORPUS,
    }
    sets = {name: NoteSet.open(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        record.dataset(name, folder)
    rows = {name: notes.select(split="train") for name, notes in sets.items()}
    rows["wide"] = training_rows(sets["wide"], sets["notes"])
    taken, seed = settings.examples, settings.examples.seed
    sources: Sources = {
        name: _source(notes, rows[name], name, getattr(taken, name), seed) for name, notes in sets.items()
    }
    files, absent = find_recordings(settings.corpus.recordings)
    for name in absent:
        print(f"[encoder] {name} is not there: left out", flush=True)
    sources["recordings"] = _recordings(files, taken.recordings, seed)
    return sources


def _source(
    notes: NoteSet, rows: np.ndarray, name: str, taken: Taken, seed: int
) -> tuple[Callable[[int], np.ndarray], Sequence[Example]]:
    labels = np.array([_instrument(notes.notes[row], name) for row in rows])
    rows = rows[some_of_each(labels, taken.notes, seed)]
    chosen = [notes.notes[row] for row in rows]
    return (lambda row: notes.float_audio([row])[0]), with_variants(
        [int(row) for row in rows],
        [_instrument(each, name) for each in chosen],
        [_sounding(each) for each in chosen],
        resampled=taken.resampled,
        reshaped=taken.reshaped,
        seed=seed,
    )


def _instrument(note: Note, source: str) -> str:
    """One preset is one instrument wherever it was rendered; an FM voice is one only within its set."""
    return note.instrument if note.source == "soundfont" else f"{source}:{note.instrument}"


def _recordings(
    files: Sequence[Path], taken: Taken, seed: int
) -> tuple[Callable[[int], np.ndarray], Sequence[Example]]:
    """Each file is an instrument of one note; many have no pitch, and nobody knows it."""
    sounds = {i: sound for i, path in enumerate(files) if (sound := read_recording(path)) is not None}
    return sounds.__getitem__, with_variants(
        list(sounds),
        [f"recording:{row}" for row in sounds],
        [UNPITCHED] * len(sounds),
        resampled=taken.resampled,
        reshaped=taken.reshaped,
        seed=seed,
    )


def _sounding(note: Note) -> float:
    return note.f0_midi if math.isfinite(note.f0_midi) else float(note.pitch)


def style(settings: Settings, root: Path, record: Record) -> None:
    """data/encoder_examples -> data/encoder_style, the blocks; watched on the validation notes of data/patches."""
    wanted = settings.style
    pictures = read_pictures(root / EXAMPLES)
    record.dataset("examples", root / EXAMPLES)
    teacher = read_published(find(TEACHER))
    bounded = standard(teacher, pictures, wanted.seed)
    notes = NoteSet.open(root / "data" / "patches")
    clips = np.stack([clip(sound) for sound in notes.float_audio(notes.select(split="validation")[:WATCHED])])
    with torch.inference_mode():
        watched = StylePicture()(torch.from_numpy(clips)), heard_frames(torch.from_numpy(clips))

    def validate(network: Features) -> dict[str, float]:
        return {"style_unexplained": unexplained(network, teacher, bounded, *watched)}

    seed_everything(wanted.seed)
    network = Features(WIDTH)
    train_style(
        network,
        teacher,
        bounded,
        pictures,
        StyleSettings(**wanted.model_dump()),
        report=lambda step, metrics: record.metrics(metrics, step=step),
        validate=validate,
        device=pick_device(),
        checkpoint=record.checkpoint,
    )
    teacher.to("cpu")
    bounded.to("cpu")
    figures = validate(network)
    record.metrics(figures)
    built = Path(tempfile.mkdtemp(prefix=".encoder_style.", dir=(root / STYLE).parent))
    save_features(network, built, figures, _origin(settings))
    publish_folder(built, root / STYLE)


def readout(settings: Settings, root: Path, record: Record) -> None:
    """data/encoder_style, and some thousand of the examples' sounds -> data/encoder_readout."""
    wanted = settings.readout
    network = StyleNetwork(wanted.size)
    network.features.load_state_dict(load_features(root / STYLE).state_dict())
    network.eval()
    sources = _sources(settings, root, record)
    kept = network.calibrate(_raw(network, _some(sources, CALIBRATED, wanted.seed), record))
    played = _some(_as_played(sources), WHITENED, wanted.seed)
    network.whiten(_raw(network, played, record), np.array([each.instrument for _, each in played]))
    figures = {"variance_kept": kept, **describe_features(root / STYLE)["metrics"]}
    record.metrics(figures)
    built = Path(tempfile.mkdtemp(prefix=".encoder_readout.", dir=(root / READOUT).parent))
    save_style(network, built, figures, _origin(settings))
    publish_folder(built, root / READOUT)


def _as_played(sources: Sources) -> Sources:
    """The notes that differ in pitch and velocity as an instrument's do: those of several velocities, as they are."""
    return {
        name: (audio, [each for each in examples if not each.semitones and each.shape is None])
        for name, (audio, examples) in sources.items()
        if name in PLAYED
    }


def _some(sources: Sources, most: int, seed: int) -> Chosen:
    """``most`` examples at most, the same ones for the same ``seed``."""
    every = [(audio, each) for audio, examples in sources.values() for each in examples]
    return [every[i] for i in np.sort(np.random.default_rng((seed, 1)).permutation(len(every))[:most])]


def _raw(network: StyleNetwork, chosen: Chosen, record: Record) -> torch.Tensor:
    """The network's statistics, [n, 3616]."""
    progress = every_few_seconds(record)
    found = []
    for start in range(0, len(chosen), BATCH):
        some = chosen[start : start + BATCH]
        clips = np.stack([hear(audio(each.row), each) for audio, each in some])
        with torch.inference_mode():
            found.append(network.raw(torch.from_numpy(clips)))
        progress("readout", start + len(some), len(chosen))
    return torch.cat(found)


def train(settings: Settings, root: Path, record: Record) -> None:
    """data/encoder_examples -> data/encoder_weights; watched on the validation patches of data/patches."""
    wanted = settings.training
    sounds = read_examples(root / EXAMPLES)
    record.dataset("examples", root / EXAMPLES)
    patches = NoteSet.open(root / "data" / "patches")
    watched = validation(patches, wanted.seed)
    seed_everything(wanted.seed)
    network = build(
        Shape(
            channels=wanted.channels,
            embedding_size=wanted.embedding_size,
        )
    )
    train_encoder(
        network,
        sounds,
        TrainingSettings(
            steps=wanted.steps,
            batch_instruments=wanted.batch_instruments,
            learning_rate=wanted.learning_rate,
            temperature=wanted.temperature,
            scaffold=wanted.scaffold,
            scaffold_weight=wanted.scaffold_weight,
            near_pitch_share=wanted.near_pitch_share,
            seed=wanted.seed,
        ),
        report=lambda step, metrics: record.metrics(metrics, step=step),
        validate=watched,
        device=pick_device(),
        checkpoint=record.checkpoint,
    )
    figures = watched(network)
    record.metrics(figures)
    built = Path(tempfile.mkdtemp(prefix=".encoder_weights.", dir=(root / TRAINED).parent))
    save(network, built, figures, _origin(settings))
    publish_folder(built, root / TRAINED)


def _origin(settings: Settings) -> dict[str, object]:
    return {"source": SOURCE, "licence": LICENCE, "recipe": settings.model_dump(mode="json")}


def ship(root: Path) -> None:
    """Both networks -> weights/encoder. Raises DataError when they are torn or over 16 MiB."""
    load_network(root / TRAINED)
    load_style(root / READOUT)
    apart.ship(root / TRAINED, root / SHIPPED, weights=WEIGHTS, description=SIDECAR, smaller="fewer channels")
    apart.ship(
        root / READOUT,
        root / SHIPPED,
        weights=STYLE_WEIGHTS,
        description=STYLE_SIDECAR,
        smaller="a smaller style",
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit status."""
    return apart.run_step(
        "encoder",
        {"corpus": corpus, "examples": examples, "style": style, "readout": readout, "train": train},
        settings=(SETTINGS, Settings),
        ship=ship,
        about=__doc__,
        arguments=arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
