"""``timbrel locate`` and ``timbrel synthesize``: the timbre map, asked of the bundle."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path

import click

from timbrel.cli.search import echo_query, plain_query
from timbrel.cli.shell import STDIO, bundle_option, echo_json, note_name, open_engine, read_audio, table
from timbrel.errors import InputError
from timbrel.files import atomic_write


class Place(click.ParamType):
    """``x,y``: two numbers with a comma between."""

    name = "x,y"

    def convert(
        self, value: str | tuple[float, float], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            x, y = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a place: write two numbers with a comma, as in 0.2,-0.4", param, ctx)
        if not (math.isfinite(x) and math.isfinite(y)):
            self.fail(f"{value!r} is not a place: both numbers must be finite", param, ctx)
        return x, y


@click.command(short_help="Where on the timbre map is a recording?")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--refine/--no-refine",
    default=True,
    show_default=True,
    help="Look around the place for the one whose note sounds most like the recording.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@bundle_option
def locate(file: Path, refine: bool, as_json: bool, bundle: Path | None) -> None:
    """Where on the timbre map is the recording in FILE (- for stdin)?

    Of a longer recording the first note counts. Silence and steady noise before it, its level, its length and
    its tuning do not.

    \b
    Example, and how to hear the place at another pitch:
      timbrel locate clip.wav
      timbrel synthesize --at 0.31,-0.12 --pitch 48 -o low.wav
    """
    audio = read_audio(file)
    with open_engine(bundle) as engine:
        place = engine.locate(audio, refine=refine)
    if as_json:
        echo_json(asdict(place) | {"query": plain_query(place.query)})
        return
    echo_query(place.query)
    click.echo(f"place  {place.x:.3f},{place.y:.3f}")
    rows = [
        (n.patch_id, n.name, n.family, n.bank, f"{n.x:.3f},{n.y:.3f}", f"{n.distance:.3f}")
        for n in place.nearest
    ]
    click.echo(table(("patch", "name", "family", "bank", "place", "away"), rows, right=(5,)))


@click.command(short_help="What does a place on the timbre map sound like?")
@click.option("--at", type=Place(), required=True, help="A place on the map, such as 0.2,-0.4.")
@click.option("--pitch", default=60, show_default=True, metavar="MIDI", help="Pitch to play; 60 is C4.")
@click.option(
    "--velocity", default=100, show_default=True, metavar="MIDI", help="How hard to strike the key, 1 to 127."
)
@click.option("--seconds", default=4.0, show_default=True, help="Length of the note.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="note.wav",
    show_default=True,
    help="WAV file to write; - for stdout.",
)
@bundle_option
def synthesize(
    at: tuple[float, float], pitch: int, velocity: int, seconds: float, output: Path, bundle: Path | None
) -> None:
    """What does a place on the timbre map sound like, at this pitch and velocity?

    A softer note is quieter, too: by 40 log10(velocity / 100) dB below -1 dBFS.

    \b
    Examples:
      timbrel synthesize --at 0.2,-0.4
      timbrel synthesize --at=-0.6,0.1 --pitch 48 --seconds 2 -o low.wav
      timbrel synthesize --at 0.2,-0.4 --velocity 40
      timbrel synthesize --at 0,0 -o - | aplay
    """
    from timbrel.audio import wav_bytes

    if str(output) != STDIO and output.is_dir():
        raise InputError(f"{output} is a folder: name the WAV file to write")
    with open_engine(bundle) as engine:
        audio = engine.synthesize(x=at[0], y=at[1], pitch=pitch, velocity=velocity, seconds=seconds)
    data = wav_bytes(audio)
    if str(output) == STDIO:
        sys.stdout.buffer.write(data)
        return
    with atomic_write(output) as handle:
        handle.write(data)
    click.echo(f"wrote {output}: {audio.seconds:.2f} s, {note_name(pitch)}, {audio.sample_rate} Hz", err=True)
