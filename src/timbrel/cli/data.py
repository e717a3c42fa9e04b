"""``timbrel data``: public data sets, to learn from."""

from __future__ import annotations

from pathlib import Path

import click

from timbrel.cli.shell import Progress

SUBSETS = ("train", "valid", "test")


@click.group(short_help="Get public data sets to learn from.")
def data() -> None:
    """Get public data sets. The default profile needs none; params/nsynth.yaml needs NSynth."""


@data.command()
@click.argument("name", type=click.Choice(["nsynth"]))
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("data/nsynth"), show_default=True,
    help="Where to: what notes.nsynth names.",
)  # fmt: skip
@click.option(
    "--subset", "subsets", type=click.Choice(SUBSETS), multiple=True, help="Only this; repeat for several."
)
@click.option("--keep", is_flag=True, help="Leave the archives there after unpacking.")
def fetch(name: str, folder: Path, subsets: tuple[str, ...], keep: bool) -> None:
    """Download NAME, checked by its hashes, and unpack it: 25 GB to come, and 62 GB of room while it is unpacked.

    What broke off goes on where it ended. An archive that lies in the folder already is not downloaded.

    \b
    Example, the small half first:
      timbrel data fetch nsynth --subset valid --subset test
    """
    from timbrel.downloads import gigabytes
    from timbrel.notes import nsynth_archives

    parts = subsets or SUBSETS
    for part in parts:
        archive = nsynth_archives.ARCHIVES[part]
        there = nsynth_archives.is_there(folder, part)
        sizes = f"{gigabytes(archive.bytes)} to come, {gigabytes(archive.unpacked_bytes)} unpacked"
        click.echo(f"nsynth-{part}: {archive.notes} notes, {'here' if there else sizes}", err=True)
    click.echo(f"licence: {nsynth_archives.LICENCE}", err=True)
    archives = nsynth_archives.ARCHIVES
    nsynth_archives.fetch(folder, parts, archives=archives, keep=keep, progress=Progress())
    click.echo(folder)
