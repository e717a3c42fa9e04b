"""``timbrel bundle``: which bundles there are, which of them is served, and how another takes its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timbrel.cli.shell import Failure, table

if TYPE_CHECKING:
    from timbrel.params import Params
    from timbrel.settings import Settings
    from timbrel.tracking.promotion import Promoter
    from timbrel.tracking.registry import Registry

params_option = click.option(
    "--params",
    type=click.Path(path_type=Path),
    help="Whose thresholds count. Default: the registry's params.yaml.",
)
port_option = click.option(
    "--port", type=click.IntRange(1, 65535), help="Of the service, instead of TIMBREL_HTTP_PORT."
)


@click.group(short_help="Bundles: list, promote, roll back, compare, check.")
def bundle() -> None:
    """The bundles that were built, and the one that is served.

    A VERSION is a number, an alias (candidate, champion, previous) or the beginning of a bundle's id. They are kept in
    the MLflow store of the folder that TIMBREL_REGISTRY names (default: the repository).
    """


@bundle.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@port_option
def use(folder: Path | None, port: int | None) -> None:
    """Serve the bundle in FOLDER (default: TIMBREL_BUNDLE, then the repository's) from now on, without stopping.

    It is checked, loaded and tried out beside the present one, which answers until then, and goes on if anything is
    wrong. Every answer is of one bundle; its header timbrel-bundle says of which. Run it on the machine and as the
    user that `timbrel serve` runs as, with the same TIMBREL_STATE. When the service is started again, it serves the
    champion: `timbrel bundle promote` is for good.

    \b
    Example:
      dvc repro && timbrel bundle use
    """
    from timbrel import settings as environment
    from timbrel.serving import publishing

    settings = environment.load(http_port=port, bundle=folder)
    # The champion is what is served already.
    built = environment.ROOT / "bundle" if settings.follows_champion else settings.bundle
    click.echo(publishing.use(settings, built))


@bundle.command("list")
@params_option
def show(params: Path | None) -> None:
    """What is registered: aliases and figures, those that a promotion compares."""
    settings, registry = _settings(), _registry()
    names = [threshold.name for threshold in _params(settings, params).promotion.thresholds]
    versions = registry.versions()
    known = [name for name in names if any(name in version.figures for version in versions)]
    rows = [
        (
            str(version.number),
            version.bundle[:12],
            ", ".join(version.aliases) or "-",
            datetime.fromtimestamp(version.registered / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
            version.revision[:8] or "-",
            *(_number(version.figures.get(name)) for name in known),
        )
        for version in versions
    ]
    header = ("version", "bundle", "alias", "registered (UTC)", "revision", *known)
    click.echo(table(header, rows, right=(0, *range(5, len(header)))))


@bundle.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def register(folder: Path | None) -> None:
    """Keep the bundle in FOLDER (default: the repository's) as the candidate, with what the reports say of it.

    The pipeline does so when it has measured what it built. A bundle that is registered already stays as it is.
    """
    from timbrel.tracking.figures import known_of

    settings, registry = _settings(), _registry()
    folder = folder or settings.registry / "bundle"
    version, fresh = registry.register(folder, known_of(folder, settings.registry))
    click.echo(f"{version.title} is {'registered' if fresh else 'registered already'}")


@bundle.command()
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Promote it even if it is worse; needs --reason.")
@click.option("--reason", default="", metavar="TEXT", help="Kept with the promotion.")
@params_option
@port_option
def promote(version: str | None, force: bool, reason: str, params: Path | None, port: int | None) -> None:
    """Make VERSION (default: the candidate) the champion: what is served from now on, also after a restart.

    It is tried out, and its figures are compared with the champion's, by the thresholds of params.yaml. A service that
    runs takes it up without stopping; if it cannot, nothing is changed. Whatever is killed meanwhile, one whole bundle
    is live, and promoting it again goes on from there.

    \b
    Example:
      dvc repro && timbrel bundle promote
    """
    if force and not reason.strip():
        raise Failure("--force needs --reason TEXT, which is kept with the promotion")
    settings = _settings(port)
    promoter = _promoter(settings, _registry())
    thresholds = _params(settings, params).promotion.thresholds
    click.echo(promoter.promote(version, thresholds, force=force, reason=reason))


@bundle.command()
@click.option("--reason", default="", metavar="TEXT", help="Kept with the rollback.")
@port_option
def rollback(reason: str, port: int | None) -> None:
    """Make the champion of before the champion again, without comparing; doing it twice changes nothing."""
    registry = None
    try:
        registry = _registry()
    except Exception as error:  # the way back must not depend on MLflow's store
        click.echo(f"the registry is left as it is ({str(error).splitlines()[0]})", err=True)
    click.echo(_promoter(_settings(port), registry).roll_back(reason))


@bundle.command()
@click.argument("name", metavar="[FOLDER|VERSION]", required=False)
def verify(name: str | None) -> None:
    """Check a bundle (default: the one that `timbrel serve` would serve): every hash, the models, the index, a search,
    a place and a note.
    """
    from timbrel.engine.trial import try_out_bundle

    settings = _settings()
    folder = _named(name).folder if name is not None else settings.bundle
    found = try_out_bundle(folder)
    content = f"{len(found.patches)} patches, {len(found.renders)} renders"
    click.echo(f"bundle {found.id[:12]} in {folder} is whole and answers: {content}")


@bundle.command()
@click.argument("version")
@click.argument("folder", type=click.Path(path_type=Path))
def pull(version: str, folder: Path) -> None:
    """Write VERSION to FOLDER, whole or not at all. A bundle that is there is replaced, anything else is not."""
    from timbrel.errors import BundleError
    from timbrel.library.bundle_copy import copy_whole
    from timbrel.library.manifest import FILE_NAME

    found = _registry().find(version)
    if (
        folder.exists()
        and not (folder / FILE_NAME).is_file()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise BundleError(f"{folder} is there and is no bundle: name a new folder, or remove it")
    copy_whole(found.folder, folder.absolute())
    click.echo(f"{found.title} is in {folder}")


@bundle.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
def diff(one: str, other: str) -> None:
    """What is different from A to B, two versions or folders: figures, settings, models, patches of the library."""
    from timbrel.library.difference import difference

    old, new = _named(one), _named(other)
    found = difference(old.folder, new.folder)
    _section("figures", _differing(old.figures, new.figures))
    settings = _differing(old.settings, new.settings) if old.settings and new.settings else {}
    _section("settings", found.settings | settings)
    _section(
        "models", {name: tuple(each and each[:12] for each in pair) for name, pair in found.models.items()}
    )
    click.echo(
        f"library: {len(found.added)} patches added, {len(found.removed)} removed, {len(found.changed)} changed"
    )
    for sign, patches in (("+", found.added), ("-", found.removed)):
        for patch in patches:
            click.echo(f"  {sign} {patch.patch_id}  {patch.name}")
    for columns, count in Counter(found.changed.values()).items():
        click.echo(f"  {count} changed in {', '.join(columns)}")


@dataclass(frozen=True, slots=True)
class _Named:
    """What a FOLDER or a VERSION on the command line means."""

    folder: Path
    figures: Mapping[str, float]
    settings: Mapping[str, Any]


def _named(name: str) -> _Named:
    from timbrel.tracking.figures import known_of

    if Path(name).is_dir():
        known = known_of(Path(name), _settings().registry)
        return _Named(Path(name), known.figures, known.settings)
    version = _registry().find(name)
    return _Named(version.folder, version.figures, version.settings)


def _settings(port: int | None = None) -> Settings:
    from timbrel.settings import load

    return load(http_port=port)


def _registry() -> Registry:
    """The registry, up to date with what is live."""
    from timbrel.tracking.registry import Registry

    settings = _settings()
    registry = Registry.open(settings.registry)
    registry.follow(settings.live)
    return registry


def _params(settings: Settings, path: Path | None) -> Params:
    from timbrel.params import load

    return load(path or settings.registry / "params.yaml")


def _promoter(settings: Settings, registry: Registry | None) -> Promoter:
    from timbrel.engine.trial import try_out_bundle
    from timbrel.serving import publishing
    from timbrel.tracking.promotion import Promoter

    say = partial(click.echo, err=True)
    return Promoter(
        registry=registry,
        live=settings.live,
        try_out=try_out_bundle,
        take_up=lambda folder, change: publishing.take_up(settings, folder, change, say),
        say=say,
    )


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted(old.keys() | new.keys())
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _section(title: str, pairs: Mapping[str, tuple[Any, ...]]) -> None:
    click.echo(f"{title}:" if pairs else f"{title}: the same")
    rows = [(f"  {name}", *map(_shown, pair)) for name, pair in pairs.items()]
    if rows:
        click.echo(table(("  name", "A", "B"), rows))


def _shown(value: Any) -> str:
    return _number(value) if value is None or isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
