"""``timbrel triton``: what a Triton on another host needs."""

from __future__ import annotations

from pathlib import Path

import click

from timbrel.cli.shell import bundle_option


@click.group(short_help="The model repository for a Triton of your own.")
def triton() -> None:
    """For a Triton that `timbrel serve` does not start."""


@triton.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--device",
    type=click.Choice(["auto", "gpu", "tensorrt", "tensorrt-fp16"]),
    help="What the models are to run on, instead of TIMBREL_TRITON_DEVICE.",
)
@bundle_option
def repository(folder: Path, device: str | None, bundle: Path | None) -> None:
    """Write the bundle's models and their configurations to FOLDER, which must be new or empty.

    With `timbrel serve` beside that Triton, TIMBREL_TRITON_REPOSITORY does this and what a promotion needs later.

    \b
    Example:
      timbrel triton repository models --device tensorrt && tritonserver --model-repository=models
    """
    from timbrel.errors import ConfigurationError
    from timbrel.serving.triton_repository import TritonRepository
    from timbrel.settings import load

    settings = load(bundle=bundle, triton_device=device)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: name another folder, or empty it")
    TritonRepository(settings, folder, settings.triton_url).lay_out()
    click.echo(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
