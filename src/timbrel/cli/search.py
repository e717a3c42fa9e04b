"""``timbrel search``: which patches sound like recordings, like a patch of the library, or like vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from timbrel.cli.shell import bundle_option, echo_json, note_name, open_engine, read_audio, table
from timbrel.errors import InputError
from timbrel.files import atomic_write

if TYPE_CHECKING:
    from timbrel.engine.asking import Asked, Vectors
    from timbrel.engine.engine import Engine
    from timbrel.engine.results import Query, SearchResult


@click.command(short_help="Which patches sound like this?")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True), metavar="[FILES]...")
@click.option("--like", metavar="PATCH_ID", help="Instead of FILES: the others that sound like this patch.")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    metavar="NPZ",
    help="Instead of FILES: vectors that `timbrel embed` wrote.",
)
@click.option("--row", type=int, metavar="N", help="Which recording of the .npz, counted from 0.")
@click.option("-k", default=10, show_default=True, help="How many hits, 1 to 100.")
@click.option("--offset", default=0, show_default=True, help="How many hits to pass over: the next page.")
@click.option(
    "--gate",
    type=click.Choice(["auto", "require", "off"]),
    default="auto",
    show_default=True,
    help="auto: compare with renders near the pitch, if there is one. require: refuse anything else. "
    "off: compare with all renders.",
)
@click.option(
    "--pitch",
    type=float,
    metavar="MIDI",
    help="Use this pitch (60 is C4) instead of the measured one; with --like, compare by the render nearest to it.",
)
@click.option("--octaves", is_flag=True, help="Compare with renders around the pitch in every octave.")
@click.option(
    "--family", "families", multiple=True, metavar="NAME", help="Only this family; may be repeated."
)
@click.option("--bank", "banks", multiple=True, metavar="NAME", help="Only this bank; may be repeated.")
@click.option(
    "--min-confidence",
    default=0.0,
    show_default=True,
    metavar="0..1",
    help="Only renders whose pitch was measured with at least this confidence.",
)
@click.option(
    "--fold/--no-fold",
    default=True,
    show_default=True,
    help="Show patches that are the same sound as one hit.",
)
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the hits' patch files there."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@bundle_option
def search(
    files: tuple[Path, ...],
    like: str | None,
    vectors: Path | None,
    row: int | None,
    k: int,
    offset: int,
    gate: str,
    pitch: float | None,
    octaves: bool,
    families: tuple[str, ...],
    banks: tuple[str, ...],
    min_confidence: float,
    fold: bool,
    save: Path | None,
    as_json: bool,
    bundle: Path | None,
) -> None:
    """Which patches sound like the recording in FILE (- for stdin)? Several FILES are taken as one sound: the
    mean of their vectors, at the median of their pitches where these agree.

    Patches are ordered by timbre alone: pitch, loudness and silence before the note do not count. The
    distances are 1 - cosine (0 is equal) of the two stages; the order is by both.

    \b
    Examples:
      timbrel search clip.wav
      timbrel search soft.wav hard.wav                two takes of one sound
      timbrel search clip.flac -k 3 --save patches/   and keep their .syx files
      timbrel search bell.mp3 --pitch 72              it is a C5, whatever was heard
      timbrel search clip.wav --offset 10             the next ten
      timbrel search --like dx7-9e2442ba67b3 --family brass --family reed
      timbrel search --vectors vectors.npz --row 4 --pitch 60
      timbrel search noise.wav --gate off --json
    """
    if sum((bool(files), like is not None, vectors is not None)) != 1:
        raise InputError("search with one of these: FILES, --like PATCH_ID, or --vectors NPZ")
    if row is not None and vectors is None:
        raise InputError("--row chooses a recording of an .npz: give --vectors, too")
    asked = _asked(files, like, vectors, row)
    with open_engine(bundle) as engine:
        result = engine.search(
            asked, k=k, offset=offset, gate=gate, pitch=pitch, octaves=octaves, families=families, banks=banks,
            min_confidence=min_confidence, fold=fold,
        )  # fmt: skip
        saved = _saved(engine, result, save) if save is not None else {}
    if as_json:
        hits = [asdict(hit) | ({"file": saved[hit.patch_id]} if saved else {}) for hit in result.hits]
        counted = {"total": result.total, "offset": result.offset}
        echo_json({"query": plain_query(result.query), **counted, "hits": hits})
        return
    echo_query(result.query)
    if not result.hits:
        beyond = result.total and f"There are {result.total} hits: --offset is at most {result.total - 1}."
        click.echo(beyond or "No patch was compared.")
        return
    _echo_hits(result)
    for name in saved.values():
        click.echo(f"wrote {name}", err=True)


def echo_query(query: Query) -> None:
    """What was heard, and what the gate made of it, in two lines."""
    pitch = "no pitch" if query.f0_hz is None else f"{query.f0_hz:.1f} Hz, {note_name(query.midi)}"
    click.echo(f"pitch  {pitch} (confidence {query.confidence:.2f})")
    click.echo(f"gate   {query.gate.decision.value}: {query.gate.reason}")


def plain_query(query: Query) -> dict[str, object]:
    """The query as the HTTP service words it."""
    gate = asdict(query.gate)
    return {"f0_hz": query.f0_hz, "midi": query.midi, "confidence": query.confidence, "gate": gate}


def _asked(files: tuple[Path, ...], like: str | None, vectors: Path | None, row: int | None) -> Asked:
    from timbrel.engine.asking import Like

    if like is not None:
        return Like(like)
    if vectors is not None:
        return _vectors(vectors, row)
    return [read_audio(file) for file in files]


def _vectors(path: Path, row: int | None) -> Vectors:
    """One recording's vectors of a file that ``timbrel embed`` wrote; the only one, or that in ``row``."""
    import numpy as np

    from timbrel.engine.asking import Vectors

    try:
        with np.load(path, allow_pickle=False) as data:
            stage1, stage2 = np.atleast_2d(data["stage1"]), np.atleast_2d(data["stage2"])
    except FileNotFoundError:
        raise InputError(f"cannot open {path}: No such file") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} holds no stage1 and stage2 ({error}): make it with `timbrel embed`"
        ) from None
    count = min(len(stage1), len(stage2))
    if row is None and count != 1:
        raise InputError(f"{path} holds {count} recordings: choose one with --row 0 to {count - 1}")
    chosen = row or 0
    if not 0 <= chosen < count:
        raise InputError(f"--row is 0 to {count - 1} in {path}, not {chosen}")
    return Vectors(stage1[chosen], stage2[chosen])


def _saved(engine: Engine, result: SearchResult, folder: Path) -> dict[str, str]:
    """Where each hit's patch file was written, by patch id."""
    saved = {}
    for hit in result.hits:
        patch = engine.bundle.patch_file(hit.patch_id)
        with atomic_write(folder / patch.filename) as handle:
            handle.write(patch.data)
        saved[hit.patch_id] = str(folder / patch.filename)
    return saved


def _echo_hits(result: SearchResult) -> None:
    header = ("", "patch", "name", "family", "bank", "sounds", "stage 2", "stage 1", "also")
    rows = [
        (
            str(rank), hit.patch_id, hit.name, hit.family, hit.bank, note_name(hit.pitch),
            f"{hit.stage2_distance:.4f}", f"{hit.stage1_distance:.4f}", " ".join(hit.also),
        )
        for rank, hit in enumerate(result.hits, start=result.offset + 1)
    ]  # fmt: skip
    # Nothing folded is the rule: then no column says so.
    width = len(header) if any(hit.also for hit in result.hits) else len(header) - 1
    click.echo(table(header[:width], [row[:width] for row in rows], right=(0, 6, 7)))
    if result.total > result.offset + len(result.hits):
        shown = f"hits {result.offset + 1} to {result.offset + len(result.hits)} of {result.total}"
        click.echo(f"{shown}; --offset {result.offset + len(result.hits)} for the next", err=True)
