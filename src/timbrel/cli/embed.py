"""``timbrel embed``: the vectors of any number of recordings, in one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from timbrel.cli.shell import Progress, bundle_option, open_engine, read_audio
from timbrel.errors import InputError
from timbrel.files import atomic_write

BATCH = 32
READERS = 4


@click.command(short_help="Vectors of any number of recordings, in one .npz.")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The .npz file to write.",
)
@click.option(
    "--skip-unreadable", is_flag=True, help="Leave out files that are no audio, naming each on stderr."
)
@bundle_option
def embed(files: tuple[str, ...], output: Path, skip_unreadable: bool, bundle: Path | None) -> None:
    """Write the vectors of FILES, thousands of them if you like, into one .npz.

    The file holds `files` [N], the names as given; `stage1` [N, d1] and `stage2` [N, d2], float32, of length
    1: their dot products are cosines. Without --skip-unreadable the first unreadable file ends it, and
    nothing is written.

    \b
    Examples:
      timbrel embed a.wav b.flac -o vectors.npz
      timbrel embed sounds/*.aiff -o vectors.npz --skip-unreadable
    \b
    and then, in Python:
      data = numpy.load("vectors.npz")
      nearest = data["files"][numpy.argsort(data["stage2"] @ data["stage2"][0])[::-1]]
    """
    from timbrel.library.vectors import embed_clips

    if not output.parent.is_dir():
        raise InputError(f"the folder {output.parent} does not exist: make it first")
    names: list[str] = []
    stage1: list[np.ndarray] = []
    stage2: list[np.ndarray] = []
    interactive = sys.stderr.isatty()
    lines = Progress()  # where a bar cannot be drawn
    progress: Any = click.progressbar(
        length=len(files), label="embedding", file=sys.stderr, hidden=not interactive
    )
    done = 0
    with open_engine(bundle) as engine, progress as bar:
        for taken, batch, clips in _batches(files, skip_unreadable=skip_unreadable):
            if batch:
                first, second = embed_clips(engine.models.run, np.stack(clips))
                names += batch
                stage1.append(first)
                stage2.append(second)
            bar.update(taken)
            done += taken
            if not interactive:
                lines("embedding", done, len(files))
    if not names:
        raise InputError("none of the files is readable audio: nothing was written")
    with atomic_write(output) as handle:
        np.savez(
            handle,
            files=np.array(names, dtype=np.str_),
            stage1=np.concatenate(stage1),
            stage2=np.concatenate(stage2),
        )
    click.echo(f"wrote {output}: {len(names)} files", err=True)


def _batches(
    files: Sequence[str], *, skip_unreadable: bool
) -> Iterator[tuple[int, list[str], list[np.ndarray]]]:
    """(files taken, names read, their clips), batch by batch, in order; decoding is shared by a few threads."""
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            names: list[str] = []
            clips: list[np.ndarray] = []
            for name, read in zip(batch, pool.map(_clip_or_reason, batch), strict=True):
                if isinstance(read, InputError):
                    if not skip_unreadable:
                        raise read
                    click.echo(f"left out: {read.message}", err=True)
                    continue
                names.append(name)
                clips.append(read)
            yield len(batch), names, clips


def _clip_or_reason(name: str) -> np.ndarray | InputError:
    """What the encoder hears of a file, float32 [72000]; or why it cannot."""
    from timbrel.audio import resample
    from timbrel.encoders.frontend import clip

    try:
        return clip(resample(read_audio(Path(name))).samples)
    except InputError as error:
        return error
