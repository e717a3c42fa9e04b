"""What the commands share: one line per error, the bundle, reading and writing."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from timbrel.errors import TimbrelError

if TYPE_CHECKING:
    from timbrel.audio import Audio
    from timbrel.engine.engine import Engine

# One recording on this machine may be larger than what a server takes from the network.
MAX_SECONDS = 600.0
MAX_BYTES = 512 << 20
STDIO = "-"
PROGRESS_SECONDS = 3.0


class Failure(click.ClickException):
    """An expected error: one line on stderr, exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"timbrel: {self.message}", file=file or sys.stderr)


class Commands(click.Group):
    """A group that says Timbrel's own errors in one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TimbrelError as error:
            raise Failure(error.message) from None


def bundle_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--bundle``; without it TIMBREL_BUNDLE, then the repository's own (both through ``settings``)."""
    return click.option(
        "--bundle",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Bundle to answer from. Default: $TIMBREL_BUNDLE, then the repository's bundle/.",
    )(command)


@contextmanager
def open_engine(bundle: Path | None) -> Iterator[Engine]:
    """The engine over the bundle, its models run in this process."""
    from timbrel.engine.engine import Engine
    from timbrel.engine.onnx_models import OnnxModels
    from timbrel.library.bundle import Bundle
    from timbrel.settings import load

    settings = load(bundle=bundle)
    opened = Bundle.open(settings.bundle)
    paths = {name: opened.path(name) for name in opened.manifest.models}
    engine = Engine(opened, OnnxModels(paths, threads=settings.threads))
    try:
        yield engine
    finally:
        engine.close()


def read_audio(path: Path) -> Audio:
    """The recording in a file, or on stdin for ``-``. Errors name the file."""
    from timbrel.audio import Limits, read

    limits = Limits(max_seconds=MAX_SECONDS, max_bytes=MAX_BYTES)
    source = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == STDIO else path
    try:
        return read(source, limits=limits)
    except TimbrelError as error:
        name = "stdin" if str(path) == STDIO else str(path)
        message = error.message if name in error.message else f"{name}: {error.message}"
        raise type(error)(message) from None


class Progress:
    """Tells on stderr, every few seconds, how far something that takes long has come."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            click.echo(f"{what}: {done} of {total}", err=True)


def echo_json(content: Any) -> None:
    """Print JSON; numbers that are not finite become null."""
    click.echo(json.dumps(_plain(content), indent=2, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns as wide as their content, two spaces apart; those in ``right`` flush right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def show(line: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(show(line) for line in (header, *rows))


NOTE_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def note_name(midi: float | None) -> str:
    """``60.1`` → ``C4 +10``: the nearest note and the cents beside it; ``-`` for no pitch."""
    if midi is None or math.isnan(midi):
        return "-"
    nearest = math.floor(midi + 0.5)
    cents = round(100 * (midi - nearest))
    name = f"{NOTE_NAMES[nearest % 12]}{nearest // 12 - 1}"
    return f"{name} {cents:+d}" if cents else name


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
