"""``timbrel index``: a bundle's index on a Milvus server."""

from __future__ import annotations

from pathlib import Path

import click

from timbrel.cli.shell import Progress, bundle_option

KINDS = ("FLAT", "HNSW", "IVF_FLAT", "AUTOINDEX")


@click.group(short_help="The index on a Milvus server, for several machines.")
def index() -> None:
    """The index on a Milvus server, for several machines."""


@index.command()
@bundle_option
@click.option("--uri", help="http(s)://host:port, or a milvus-lite file. Default: $TIMBREL_MILVUS_URI.")
@click.option("--kind", type=click.Choice(KINDS), default="FLAT", show_default=True, help="FLAT is exact.")
@click.option("--rebuild", is_flag=True, help="Make the collection anew.")
def push(bundle: Path | None, uri: str | None, kind: str, rebuild: bool) -> None:
    """Fill Milvus with a bundle's index, and turn the alias `timbrel` to it.

    Each bundle has a collection of its own, named for its content; one that is whole is left as it is. Services find
    theirs with TIMBREL_INDEX=milvus, each that of the bundle it serves. A token is read from TIMBREL_MILVUS_TOKEN.

    \b
    Example:
      timbrel index push --uri http://milvus:19530 --bundle data/large/bundle
    """
    from timbrel.errors import ConfigurationError
    from timbrel.library.bundle import Bundle
    from timbrel.milvus.collections import Milvus
    from timbrel.settings import load

    settings = load(bundle=bundle, milvus_uri=uri)
    if not settings.milvus_uri:
        raise ConfigurationError("name the Milvus with --uri or TIMBREL_MILVUS_URI")
    opened = Bundle.open(settings.bundle)
    milvus = Milvus(settings.milvus_uri, token=settings.milvus_token, seconds=settings.deadline_seconds)
    tell = Progress()
    try:
        name = milvus.push(
            opened, kind=kind, rebuild=rebuild, progress=lambda done, total: tell("renders", done, total)
        )
    finally:
        milvus.close()
    click.echo(f"{name}: {len(opened.renders)} renders of bundle {opened.id[:12]}")
