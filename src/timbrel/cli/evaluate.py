"""``timbrel evaluate``: measuring the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timbrel.cli.shell import Progress, bundle_option, open_engine
from timbrel.errors import InputError

if TYPE_CHECKING:
    from timbrel.engine.engine import Engine
    from timbrel.evaluation.encoders import EmbedAll
    from timbrel.evaluation.instruments import LabelledNotes


@click.group(short_help="Measure what the bundle does.")
def evaluate() -> None:
    """Measure what the bundle does, on real renders and real decoded audio.

    The same figures come from `dvc repro evaluate`, which writes them to reports/.
    """


def _evaluation(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that the measurements share."""
    command = click.option("--seed", default=20, show_default=True, help="Of the random choice.")(command)
    command = click.option(
        "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there, too."
    )(command)
    return bundle_option(command)


@evaluate.command("search")
@click.option(
    "--patches", default=200, show_default=True, type=click.IntRange(1), help="Random library patches."
)
@click.option("--noise-db", default=30.0, show_default=True, help="White noise this far below each note.")
@click.option(
    "--velocities",
    nargs=2,
    type=click.IntRange(1, 127),
    default=(60, 127),
    show_default=True,
    metavar="LOW HIGH",
    help="Softest and hardest of the notes.",
)
@click.option(
    "--banks", type=click.Path(path_type=Path), default=Path("banks"), show_default=True,
    help="The folder of your soundfonts, if the library holds presets of theirs.",
)  # fmt: skip
@_evaluation
def evaluate_search(
    patches: int, noise_db: float, velocities: tuple[int, int], banks: Path, seed: int, output: Path | None,
    bundle: Path | None,
) -> None:  # fmt: skip
    """Does a note of a library patch, at another velocity and with light noise, find its patch?

    Renders with the patches' own engines (`pip install timbrel[pipeline]`). Beside the shipped search: stage
    1 alone, stage 2 alone, MFCC and mel baselines, with and without the pitch gate.

    \b
    Example:
      timbrel evaluate search --patches 50
    """
    from timbrel.evaluation.patch_recall import RecallSettings, measure

    low, high = velocities
    if low > high:
        raise InputError("--velocities takes the lower one first")
    settings = RecallSettings(
        patches=patches, noise_db=noise_db, min_velocity=low, max_velocity=high, seed=seed
    )
    with open_engine(bundle) as engine:
        _finish(measure(engine, settings, banks=banks, progress=Progress()), output)


@evaluate.command("synthesis")
@click.option(
    "--pairs", default=200, show_default=True, type=click.IntRange(1), help="Random (place, pitch) pairs."
)
@click.option("--seconds", default=2.0, show_default=True, help="Length of each note.")
@_evaluation
def evaluate_synthesis(
    pairs: int, seconds: float, seed: int, output: Path | None, bundle: Path | None
) -> None:
    """Does a synthesised note have the pitch that was asked for, and is it a clean note?

    \b
    Example:
      timbrel evaluate synthesis --pairs 50
    """
    from timbrel.evaluation.synthesis_pitch import SynthesisSettings, measure

    settings = SynthesisSettings(pairs=pairs, seconds=seconds, seed=seed)
    with open_engine(bundle) as engine:
        _finish(measure(engine, settings, progress=Progress()), output)


@evaluate.command("instruments")
@click.argument("notes", type=click.Path(path_type=Path, file_okay=False), default=Path("data/notes"))
@click.option("--window", default=1.0, show_default=True, help="The gate: semitones to either side.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The report to put it into."
)
@bundle_option
def evaluate_instruments(notes: Path, window: float, output: Path | None, bundle: Path | None) -> None:
    """Does a note find its instrument, by one note of each and by those near its pitch?

    NOTES is a NoteSet (default: data/notes, of which the held-out instruments are taken) or a folder in NSynth's
    layout. Beside the bundle's two vectors: MFCC, mel, the codec's latents, and the published encoders whose files are
    there (`timbrel encoders list`).

    \b
    Example:
      timbrel evaluate instruments -o reports/retrieval.json
    """
    from timbrel.evaluation import instruments

    progress = Progress()
    labelled = instruments.read_notes(notes, progress)
    command = f"timbrel evaluate instruments {notes} --window {window:g}"
    with open_engine(bundle) as engine:
        part = _instruments("instruments", {"command": command}, labelled, engine, window, progress)
    _finish_part(part, output)


@evaluate.command("engines")
@click.option("--presets", default=60, show_default=True, type=click.IntRange(2), help="Of each engine.")
@click.option("--window", default=1.0, show_default=True, help="The gate: semitones to either side.")
@_evaluation
def evaluate_engines(
    presets: int, window: float, seed: int, output: Path | None, bundle: Path | None
) -> None:
    """The same as `instruments`, on engines that no encoder has learned from.

    Plays presets of amsynth and whysynth (Debian packages) and patches of Vital (`pip install vita`): four keys, soft,
    at velocity 100 and as hard as can be.

    \b
    Example:
      timbrel evaluate engines --presets 100 -o reports/retrieval.json
    """
    from timbrel.evaluation.engine_instruments import render_notes

    labelled, kept = render_notes(presets, seed=seed)
    command = f"timbrel evaluate engines --presets {presets} --window {window:g} --seed {seed}"
    with open_engine(bundle) as engine:
        about = {"command": command, "presets": kept}
        part = _instruments("engines", about, labelled, engine, window, Progress())
    _finish_part(part, output)


def _instruments(
    protocol: str,
    about: Mapping[str, Any],
    labelled: LabelledNotes,
    engine: Engine,
    window: float,
    progress: Progress,
) -> dict[str, Any]:
    """The protocol's part of the report."""
    from timbrel.evaluation import instruments
    from timbrel.evaluation.encoders import BUNDLED, SEARCH, baselines
    from timbrel.evaluation.report import protocol_part

    vectors = instruments.embed_notes(labelled, _every_encoder(engine), progress)
    stage1_share, whitening = engine.bundle.manifest.search.stage1_share, engine.bundle.styles.whitening
    figures = instruments.measure(
        vectors, labelled.labels, window=window, stage1_share=stage1_share, whitening=whitening
    )
    stage1, stage2 = (vectors[name] for name in BUNDLED)
    content = {
        **about,
        "bundle": engine.bundle.id,
        "encoder": SEARCH,
        **instruments.headline(figures[SEARCH]),
        "stages": instruments.stages(
            stage1, stage2, labelled.labels, window=window, stage1_share=stage1_share, whitening=whitening
        ),
        "by_encoder": figures,
    }
    beside = {name: instruments.headline(figures[name]) for name in baselines(figures)}
    return protocol_part(protocol, content, beside)


@evaluate.command("conditions")
@click.option(
    "--patches", default=100, show_default=True, type=click.IntRange(1), help="Random library patches."
)
@click.option(
    "--banks", type=click.Path(path_type=Path), default=Path("banks"), show_default=True,
    help="The folder of your soundfonts, if the library holds presets of theirs.",
)  # fmt: skip
@click.option(
    "--renders", type=click.Path(path_type=Path, file_okay=False), default=Path("data/patches"), show_default=True,
    help="The library's renders, as the patches stage left them; made again where the folder is not there.",
)  # fmt: skip
@_evaluation
def evaluate_conditions(
    patches: int, banks: Path, renders: Path, seed: int, output: Path | None, bundle: Path | None
) -> None:
    """Does a note find its patch when it is recorded with noise, in a room, late, lossily, louder?

    Renders with the patches' own engines (`pip install timbrel[pipeline]`). Beside the shipped search: each
    stage alone, MFCC, mel, and EfficientAT mn04 where its file is; and how many candidates stage 2 needs.

    \b
    Example:
      timbrel evaluate conditions --patches 50 -o reports/retrieval.json
    """
    from timbrel.evaluation.conditions import ConditionSettings, measure
    from timbrel.evaluation.queries import stored_library
    from timbrel.evaluation.report import protocol_part

    settings = ConditionSettings(patches=patches, min_velocity=60, max_velocity=127, seed=seed)
    with open_engine(bundle) as engine:
        beside = _every_encoder(engine, bundled=False)
        library = (
            stored_library(renders, engine.bundle.renders) if (renders / "notes.csv").is_file() else None
        )
        ours, others = measure(
            engine, settings, banks=banks, library=library, beside=beside, progress=Progress()
        )
    command = f"timbrel evaluate conditions --patches {patches} --seed {seed}"
    _finish_part(protocol_part("conditions", {"command": command, **ours}, others), output)


@evaluate.command("hubness")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The report to put it into."
)
@bundle_option
def evaluate_hubness(output: Path | None, bundle: Path | None) -> None:
    """Which sounds of the library does no search show, and which does every search show?

    Each render searches the library for its ten nearest patches: by plain cosine, and as the search orders.

    \b
    Example:
      timbrel evaluate hubness -o reports/retrieval.json
    """
    from timbrel.evaluation import hubness

    with open_engine(bundle) as engine:
        figures = hubness.measure(engine.bundle, Progress())
    _finish_part({"hubness": {"command": "timbrel evaluate hubness", **figures}}, output)


@evaluate.command("ratings")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The report to put it into."
)
@bundle_option
def evaluate_ratings(folder: Path, output: Path | None, bundle: Path | None) -> None:
    """Do distances agree with how people rated the dissimilarity of sounds?

    FOLDER holds sounds/<dataset>/*.aiff and true_dissim/<dataset>.txt, a square matrix of ratings in the order of the
    sounds' names (Tian, Lattner and Saitis, ISMIR 2025). Beside the bundle's two vectors: MFCC, mel, the codec's
    latents, and the published encoders whose files are there (`timbrel encoders list`).

    \b
    Example:
      timbrel evaluate ratings ratings/ -o reports/retrieval.json
    """
    from timbrel.evaluation import ratings
    from timbrel.evaluation.encoders import OURS, baselines
    from timbrel.evaluation.report import protocol_part

    datasets = ratings.read_rated(folder)
    with open_engine(bundle) as engine:
        figures = ratings.measure(datasets, _every_encoder(engine), Progress())
        content = {
            "bundle": engine.bundle.id,
            "encoder": OURS,
            "datasets": [each.name for each in datasets],
            "sounds": sum(len(each.clips) for each in datasets),
            **figures[OURS]["cosine"],
            "by_encoder": figures,
        }
    beside = {name: figures[name]["cosine"] for name in baselines(figures)}
    _finish_part(protocol_part("ratings", content, beside), output)


@evaluate.command("sweeps")
@click.option(
    "--presets", default=10, show_default=True, type=click.IntRange(1), help="Of each attribute and engine."
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("data/sweeps"), show_default=True,
    help="Where the sounds are kept, 4 MB a sweep; what is there is not played again.",
)  # fmt: skip
@_evaluation
def evaluate_sweeps(presets: int, folder: Path, seed: int, output: Path | None, bundle: Path | None) -> None:
    """Do distances grow as one knob of a synthesiser is turned?

    Plays amsynth (Debian package) and Vital (`pip install vita`), which no encoder here has learnt from: one parameter
    of a preset in 20 steps, C4 held for 3 seconds (Combes, Weinzierl and Obermayer 2025). The figure is Spearman's
    correlation of the steps with the L1 distances from the first and from the last, the mean over presets and
    attributes. Beside the bundle's two vectors: MFCC, mel, and EfficientAT mn04 where its file is.

    \b
    Example:
      timbrel evaluate sweeps -o reports/retrieval.json
    """
    from timbrel.evaluation import sweeps
    from timbrel.evaluation.encoders import OURS, baselines
    from timbrel.evaluation.report import protocol_part
    from timbrel.notes.sweeps import render_sweeps

    progress = Progress()
    files = render_sweeps(folder, presets=presets, seed=seed, progress=progress)
    with open_engine(bundle) as engine:
        figures = sweeps.measure(files, _every_encoder(engine), progress)
        content = {
            "command": f"timbrel evaluate sweeps --presets {presets} --seed {seed}",
            "bundle": engine.bundle.id,
            "encoder": OURS,
            **sweeps.headline(figures[OURS]),
            "by_encoder": figures,
        }
    beside = {name: sweeps.headline(figures[name]) for name in baselines(figures)}
    _finish_part(protocol_part("sweeps", content, beside), output)


def _every_encoder(engine: Engine, *, bundled: bool = True) -> EmbedAll:
    """All that can be asked; on stderr what cannot, and why."""
    from timbrel.evaluation.encoders import of_engine

    embed, absent = of_engine(engine, bundled=bundled)
    for reason in absent.values():
        click.echo(f"left out: {reason}", err=True)
    return embed


def _finish_part(content: dict[str, Any], output: Path | None) -> None:
    """As ``_finish``, into a report that holds other parts, too."""
    from timbrel.evaluation.report import rounded, update_report

    if output is not None:
        update_report(output, content)
    click.echo(json.dumps(rounded(content), indent=2, ensure_ascii=False))


def _finish(content: dict[str, Any], output: Path | None) -> None:
    from timbrel.evaluation.report import rounded, write_report

    if output is not None:
        write_report(output, content)
    click.echo(json.dumps(rounded(content), indent=2, ensure_ascii=False))
