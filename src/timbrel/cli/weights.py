"""``timbrel weights``: weights that others published, by name."""

from __future__ import annotations

from pathlib import Path

import click

from timbrel.cli.shell import Progress, table


@click.group(short_help="Get weights that others published.")
def weights() -> None:
    """Get weights that others published. Nothing needs them but what says so when it is asked for.

    They lie in the folder that TIMBREL_WEIGHTS names, else in the user's cache.
    """


@weights.command("list")
def show() -> None:
    """What can be fetched, under which licence, and whether it is here."""
    from timbrel.published import CATALOGUE, cache_folder

    folder = cache_folder()
    rows = [
        (each.name, "here" if (folder / each.file).is_file() else "-", each.licence, each.about)
        for each in CATALOGUE.values()
    ]
    click.echo(table(("name", "file", "licence", "what it is"), rows))
    click.echo(f"folder: {folder}")


@weights.command()
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Instead of the usual folder."
)
def fetch(name: str, folder: Path | None) -> None:
    """Download NAME, checked by its hash. A download that broke off goes on where it ended.

    \b
    Example:
      timbrel weights fetch efficientat-mn04
    """
    from timbrel.published import cache_folder, published
    from timbrel.published import fetch as download

    entry = published(name)
    click.echo(f"{entry.about}\nlicence: {entry.licence}", err=True)
    click.echo(download(entry, folder or cache_folder(), Progress()))
