"""``timbrel instrument``: a place of the map as an instrument for a sampler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from timbrel.cli.shell import Progress, bundle_option, open_engine
from timbrel.errors import InputError
from timbrel.files import atomic_write


@click.command(short_help="A place on the timbre map as an instrument for a sampler.")
@click.option("--x", type=float, required=True, help="Place on the map, left to right.")
@click.option("--y", type=float, required=True, help="Place on the map, bottom to top.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of each note.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER|FILE.zip",
    help="A new folder, or a zip file, to write.",
)
@bundle_option
def instrument(x: float, y: float, seconds: float, out: Path, bundle: Path | None) -> None:
    """Write a place on the timbre map as an SFZ instrument: a WAV file for each of its 25 keys.

    Any SFZ sampler loads it (sfizz, sforzando, LinuxSampler). A note plays once
    through, without a loop: ask for --seconds as long as you will hold a key.

    \b
    Examples:
      timbrel instrument --x 0.2 --y -0.4 --out warm/
      timbrel instrument --x 0.2 --y -0.4 --seconds 8 --out warm.zip
    """
    from timbrel.engine import sfz

    zip_wanted = out.suffix.lower() == ".zip"
    if zip_wanted and out.is_dir():
        raise InputError(f"{out} is a folder: name the zip file to write")
    if not zip_wanted:
        sfz.check_new(out)  # before the work, not after it
    interactive = sys.stderr.isatty()
    lines = Progress()  # where a bar cannot be drawn
    bar: Any = click.progressbar(length=1, label="notes", file=sys.stderr, hidden=not interactive)

    def tell(done: int, total: int) -> None:
        bar.length = total
        bar.update(1)
        if not interactive:
            lines("notes", done, total)

    with open_engine(bundle) as engine, bar:
        made = engine.instrument(x=x, y=y, seconds=seconds, progress=tell)
        files = sfz.instrument_files(made, engine.bundle.manifest)
    if zip_wanted:
        with atomic_write(out) as handle:
            handle.write(sfz.zipped(files, sfz.instrument_name(made)))
    else:
        sfz.write_folder(files, out)
    click.echo(f"wrote {out}: {len(made.notes)} notes of {made.notes[0][1].seconds:.2f} s", err=True)
