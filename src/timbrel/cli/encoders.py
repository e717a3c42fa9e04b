"""``timbrel encoders``: the encoders that others published, by name, and as models to be served."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import click

from timbrel.cli.shell import table


@click.group(short_help="Published encoders, and how to serve them.")
def encoders() -> None:
    """Published encoders: which there are, and their export for serving beside the bundle's models."""


@encoders.command("list")
def show() -> None:
    """Every encoder that `timbrel evaluate` measures beside ours, and whether it can be asked here."""
    from timbrel.encoders.registry import ENCODERS, NETWORKS
    from timbrel.errors import DataError

    rows = []
    for name in ENCODERS:
        network = NETWORKS.get(name)
        if network is None:
            rows.append((name, "24000 Hz", "here", ""))
            continue
        try:
            state, reason = "here", network.file().name
        except DataError as error:
            state, reason = "-", error.message
        rows.append((name, f"{network.hears.sample_rate} Hz", state, reason))
    click.echo(table(("name", "hears", "state", "weights"), rows))


@encoders.command()
@click.argument("name")
@click.option(
    "--to", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where to."
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Its published file, if it lies elsewhere than usual.",
)
@click.option(
    "--block", "blocks", multiple=True, help="A block whose style is wanted; several times for several."
)
@click.option(
    "--style", "kind", type=click.Choice(["moments", "gram"]), default="moments", show_default=True,
    help="Mean and deviation of each channel, or Gram matrices.",
)  # fmt: skip
def export(
    name: str, folder: Path, weights: Path | None, blocks: tuple[str, ...], kind: Literal["moments", "gram"]
) -> None:
    """Write the encoder NAME as ONNX, front end and style inside, with a sidecar: hash, source, licence, tensors.

    Needs torch (`pip install timbrel[pipeline]`); serving what it writes does not.

    \b
    Serve what is in the folder beside the bundle's models, in the same Triton:
      timbrel encoders export efficientat-mn04 --to encoders
      TIMBREL_ENCODERS=encoders timbrel serve
    \b
    and ask it, in Python, as the commands here do:
      clips = numpy.stack([timbrel.encoders.frontend.clip(audio)])        # audio at 24 kHz
      models = timbrel.serving.triton_client.TritonModels("127.0.0.1:8001", 30)
      timbrel.encoders.registry.open_encoder("efficientat-mn04", run=models.run).embed(clips).style
    """
    from timbrel.encoders.graph import tones
    from timbrel.encoders.interface import Style
    from timbrel.encoders.registry import published_network
    from timbrel.files import sha256_of
    from timbrel.library.describe import describe_model
    from timbrel.library.exported import Exported

    network = published_network(name)
    file = weights or network.file()
    style = Style(blocks or network.style.blocks, kind)
    graph = network.build(file, style)
    target = folder / f"{name}.onnx"
    difference = graph.write(target, network.front(network.hears.of(tones(min(network.batch + 1, 4)))))
    source = f"{network.about}; {file.name} sha256 {sha256_of(file)}"
    described = describe_model(target, source=source, licence=network.licence)
    Exported(
        name=name,
        sha256=sha256_of(target),
        model=replace(described, file=target.name),
        hears={"sample_rate": network.hears.sample_rate, "samples": network.hears.samples},
        style=asdict(style),
    ).write(folder)
    click.echo(f"{network.about}\nlicence: {network.licence}", err=True)
    click.echo(f"onnxruntime differs from torch by {difference:.1g} of the largest number", err=True)
    click.echo(f"serve it: TIMBREL_ENCODERS={folder} timbrel serve", err=True)
    click.echo(target)
