"""``timbrel bundle``: what a running service serves."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(short_help="Another bundle for the service that runs.")
def bundle() -> None:
    """The bundle that a running service serves."""


@bundle.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="Of the service, instead of TIMBREL_HTTP_PORT.")
def use(folder: Path | None, port: int | None) -> None:
    """Serve the bundle in FOLDER (default: TIMBREL_BUNDLE, then the repository's) from now on, without stopping.

    It is checked, loaded and tried out beside the present one, which answers until then, and goes on if anything is
    wrong. Every answer is of one bundle; its header timbrel-bundle says of which. Run it on the machine and as the
    user that `timbrel serve` runs as, with the same TIMBREL_STATE.

    \b
    Example:
      dvc repro && timbrel bundle use
    """
    from timbrel.serving import publishing
    from timbrel.settings import load

    settings = load(http_port=port, bundle=folder)
    click.echo(publishing.use(settings, settings.bundle))
