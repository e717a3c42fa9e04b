"""``timbrel pipeline``: a profile looked at as a whole, before it is built."""

from __future__ import annotations

from pathlib import Path

import click

from timbrel.cli.shell import table

PARAMS = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group(short_help="Check a profile before it is built.")
def pipeline() -> None:
    """Check a profile of the pipeline, or put one together. `dvc repro` builds it; `--dry` lists its stages."""


@pipeline.command()
@click.argument("path", type=PARAMS, default=Path("params.yaml"))
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="The checkout."
)
def check(path: Path, root: Path) -> None:
    """Check the profile in PATH and everything that it needs here, without running anything.

    Settings, published weights, folders and room on the disk: what is amiss is told at once. Before that, by stage, the
    time that it would take on two CPU cores, in proportion to the default profile's measured run; stages that do other
    work than there were not measured. A GPU's times are measured on it: `python benchmarks/rehearsal.py`.

    \b
    Example:
      timbrel pipeline check params/nsynth.yaml
    """
    from timbrel.downloads import gigabytes
    from timbrel.errors import ConfigurationError
    from timbrel.params import load
    from timbrel.stages import readiness

    params = load(path)
    amount = readiness.amount_of(params)
    estimates = {name: cost.estimate(params, amount) for name, cost in readiness.COSTS.items()}
    rows = [
        (name, "not measured" if seconds is None else f"{seconds / 60:.1f} min")
        for name, seconds in estimates.items()
    ]
    rows.append(("those", f"{sum(filter(None, estimates.values())) / 60:.1f} min"))
    click.echo(table(("stage", "two CPU cores, estimated"), rows, right=(1,)))
    click.echo(
        f"at most {amount.notes} notes and {amount.renders} renders, {gigabytes(readiness.bytes_needed(params))}"
    )
    problems = [
        *readiness.missing_weights(params, root),
        *readiness.missing_data(params, root),
        *readiness.missing_room(params, root),
    ]
    if problems:
        raise ConfigurationError(f"{path}: {readiness.told(problems)}")
    click.echo(f"{path}: nothing is missing")


@pipeline.command("params")
@click.argument("base", type=PARAMS)
@click.argument("overlays", type=PARAMS, nargs=-1)
def put_together(base: Path, overlays: tuple[Path, ...]) -> None:
    """Print the profile BASE with the settings of the OVERLAYS in it, checked as a whole.

    \b
    Example, the NSynth build in miniature:
      timbrel pipeline params params/nsynth.yaml params/overlays/rehearsal.yaml > params.yaml
    """
    from timbrel.params import with_overlays

    click.echo(with_overlays(base, *overlays), nl=False)
