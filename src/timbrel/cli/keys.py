"""``timbrel keys``: the API keys of the service."""

from __future__ import annotations

import click

from timbrel.cli.shell import table


@click.group(short_help="API keys of the service: create, list, revoke.")
def keys() -> None:
    """API keys of the service. They lie, hashed, in the file that TIMBREL_KEYS_FILE names.

    A running service heeds a change at once.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--per-minute", type=click.IntRange(1, 1_000_000), default=600, show_default=True, help="Requests."
)
def create(name: str, per_minute: int) -> None:
    """Make a key for NAME and print it: once, it is kept nowhere.

    \b
    Example:
      timbrel keys create studio --per-minute 120
    """
    from timbrel.serving import keys as stored
    from timbrel.settings import load

    path = load().keys_file
    key, presented = stored.create(path, name, per_minute=per_minute)
    click.echo(presented)
    click.echo(f"{key.key_id} ({name}) is in {path}; the key itself is shown only this once", err=True)


@keys.command("list")
def show() -> None:
    """Which keys there are."""
    from timbrel.serving import keys as stored
    from timbrel.settings import load

    rows = [(key.key_id, key.name, str(key.per_minute), key.created) for key in stored.read(load().keys_file)]
    click.echo(table(("id", "name", "per minute", "created"), rows, right=(2,)))


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Take the key with this ID away; it is refused from now on."""
    from timbrel.serving import keys as stored
    from timbrel.settings import load

    key = stored.revoke(load().keys_file, key_id)
    click.echo(f"{key.key_id} ({key.name}) is revoked")
