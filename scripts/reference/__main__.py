"""Write docs/reference from the code that it describes: `make readme`. With --check, only say whether it is up to date.

Nothing on these pages is written by hand: the words are those of help texts, fields, docstrings and the .proto file.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import interfaces
import options
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from wording import table

from timbrel import client, errors
from timbrel.cli import main as timbrel
from timbrel.serving import metrics
from timbrel.serving.grpc_exchange import STATUSES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def commands() -> str:
    parts = [
        "# Command line",
        "What `timbrel COMMAND --help` prints. `make help` lists the commands for developers.",
    ]
    root = click.Context(
        timbrel, info_name="timbrel", max_content_width=100, terminal_width=100, **timbrel.context_settings
    )
    for context in walk(root):
        parts.append(f"## {context.command_path}\n\n```text\n{context.get_help().rstrip()}\n```")
    return "\n\n".join(parts)


def walk(context: click.Context) -> Iterator[click.Context]:
    """A command's context, and those of all commands below it, as click makes them."""
    yield context
    if isinstance(context.command, click.Group):
        for name, command in sorted(context.command.commands.items()):
            yield from walk(
                click.Context(command, info_name=name, parent=context, **command.context_settings)
            )


def prometheus() -> str:
    rows = []
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            kind_ = next(
                each.__name__.lower() for each in (Counter, Gauge, Histogram) if isinstance(metric, each)
            )
            name = f"{family.name}_total" if kind_ == "counter" else family.name
            # What a metric says of itself has no labels before it has samples.
            rows.append((f"`{name}`", kind_, ", ".join(metric._labelnames), family.documentation))
    for family in metrics.Workers([]).collect():
        rows.append((f"`{family.name}`", "gauge", "", family.documentation))
    return "\n\n".join(
        [
            "# Metrics",
            "What `/metrics` gives Prometheus, of all workers together. Counters begin at "
            "0, so that a first failure shows as a rise. Rules and dashboards on them lie in `monitoring/`.",
            table(("metric", "type", "labels", "meaning"), rows),
        ]
    )


def error_codes() -> str:
    rows = []
    for error in subclasses(errors.TimbrelError):
        status = error.http_status
        rows.append(
            (
                f"`{error.code}`",
                f"`{error.__name__}`",
                str(status),
                STATUSES[status].name,
                inspect.getdoc(error) or "",
            )
        )
    rows.append(
        (
            "`internal_error`",
            "`TimbrelError`",
            "500",
            STATUSES[500].name,
            "Something went wrong inside; the log tells what.",
        )
    )
    return "\n\n".join(
        [
            "# Errors",
            "Codes are stable; messages are one line and say what to do. Python raises the class, HTTP answers with "
            "the status, gRPC with its own and the code in `timbrel-code`. What a service never answers with has the "
            "status of the class above it.",
            table(("code", "Python", "HTTP", "gRPC", "meaning"), rows),
        ]
    )


def subclasses(base: type[errors.TimbrelError]) -> Iterator[type[errors.TimbrelError]]:
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


def python() -> str:
    parts = [
        "# Python",
        "`from timbrel import Client`. `AsyncClient` has the same calls, to be awaited.",
        f"## Client\n\n{docstring(client.Client)}",
        docstring(client.Client.__init__),
    ]
    for name, method in inspect.getmembers(client.Client, inspect.isfunction):
        if not name.startswith("_"):
            # As it is called, and without the quotes that annotations are kept in.
            call = re.sub(r"\(self(, )?", "(", str(inspect.signature(method)))
            call = re.sub(r"(: |-> )'([^']*)'", r"\1\2", call)
            parts.append(f"## {name}\n\n`{name}{call}`\n\n{docstring(method)}")
    return "\n\n".join(parts)


def docstring(of: Any) -> str:
    """As text: its lists are indented, which Markdown would run together."""
    return f"```text\n{inspect.getdoc(of)}\n```"


PAGES = {
    "cli": commands,
    "http": interfaces.http,
    "grpc": interfaces.grpc,
    "python": python,
    "params": options.params,
    "settings": options.variables,
    "metrics": prometheus,
    "errors": error_codes,
}


def write(folder: Path, *, only_check: bool = False) -> list[Path]:
    """Bring the pages in ``folder`` up to date; returns those that were behind."""
    behind = []
    for name, make in PAGES.items():
        path = folder / f"{name}.md"
        text = make() + "\n"
        if not path.exists() or path.read_text() != text:
            behind.append(path)
            if not only_check:
                path.write_text(text)
    return behind


def main() -> int:
    only_check = "--check" in sys.argv[1:]
    behind = write(REFERENCE, only_check=only_check)
    if behind and only_check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in behind)
        print(f"{names}: behind the code, run `make readme`", file=sys.stderr)
    return int(bool(behind) and only_check)


if __name__ == "__main__":
    raise SystemExit(main())
