"""``timbrel search``, ``timbrel locate`` and ``timbrel synthesize``: the two questions, asked of the bundle."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from timbrel.cli.shell import STDIO, bundle_option, echo_json, note_name, open_engine, read_audio, table
from timbrel.errors import InputError
from timbrel.files import atomic_write

if TYPE_CHECKING:
    from timbrel.engine.results import Query


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


@click.command(short_help="Which patches sound like a recording?")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-k", default=10, show_default=True, help="How many patches, 1 to 100.")
@click.option(
    "--gate",
    type=click.Choice(["auto", "require", "off"]),
    default="auto",
    show_default=True,
    help="auto: compare with renders near the pitch, if there is one. require: refuse anything else. "
    "off: compare with all renders.",
)
@click.option(
    "--pitch", type=float, metavar="MIDI", help="Use this pitch (60 is C4) instead of the measured one."
)
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the hits' patch files there."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@bundle_option
def search(
    file: Path, k: int, gate: str, pitch: float | None, save: Path | None, as_json: bool, bundle: Path | None
) -> None:
    """Which patches sound like the recording in FILE (- for stdin)?

    Patches are ordered by timbre alone: pitch, loudness and silence before the note do not count. The
    distances are 1 - cosine (0 is equal) of the two stages; the second decides the order.

    \b
    Examples:
      timbrel search clip.wav
      timbrel search clip.flac -k 3 --save patches/   and keep their .syx files
      timbrel search bell.mp3 --pitch 72              it is a C5, whatever was heard
      timbrel search noise.wav --gate off --json
    """
    audio = read_audio(file)
    with open_engine(bundle) as engine:
        result = engine.search(audio, k=k, gate=gate, pitch=pitch)
        saved = {}
        if save is not None:
            for hit in result.hits:
                patch = engine.bundle.patch_file(hit.patch_id)
                with atomic_write(save / patch.filename) as handle:
                    handle.write(patch.data)
                saved[hit.patch_id] = str(save / patch.filename)
    if as_json:
        hits = [asdict(hit) | ({"file": saved[hit.patch_id]} if saved else {}) for hit in result.hits]
        echo_json({"query": _plain_query(result.query), "hits": hits})
        return
    _echo_query(result.query)
    if not result.hits:
        click.echo("No patch was compared.")
        return
    header = ("", "patch", "name", "family", "bank", "sounds", "stage 2", "stage 1")
    rows = [
        (
            str(rank), hit.patch_id, hit.name, hit.family, hit.bank, note_name(hit.pitch),
            f"{hit.stage2_distance:.4f}", f"{hit.stage1_distance:.4f}",
        )
        for rank, hit in enumerate(result.hits, start=1)
    ]  # fmt: skip
    click.echo(table(header, rows, right=(0, 6, 7)))
    for name in saved.values():
        click.echo(f"wrote {name}", err=True)


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
        echo_json(asdict(place) | {"query": _plain_query(place.query)})
        return
    _echo_query(place.query)
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


def _echo_query(query: Query) -> None:
    pitch = "no pitch" if query.f0_hz is None else f"{query.f0_hz:.1f} Hz, {note_name(query.midi)}"
    click.echo(f"pitch  {pitch} (confidence {query.confidence:.2f})")
    click.echo(f"gate   {query.gate.decision.value}: {query.gate.reason}")


def _plain_query(query: Query) -> dict[str, object]:
    """The query as the HTTP service words it."""
    gate = {"decision": query.gate.decision.value, "reason": query.gate.reason}
    return {"f0_hz": query.f0_hz, "midi": query.midi, "confidence": query.confidence, "gate": gate}
