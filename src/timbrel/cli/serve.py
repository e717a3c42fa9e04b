"""``timbrel serve``: running the service."""

from __future__ import annotations

from pathlib import Path

import click

from timbrel.cli.shell import Failure, bundle_option
from timbrel.errors import TimbrelError


@click.command(short_help="Start Triton and the HTTP service.")
@click.option("--port", type=click.IntRange(1, 65535), help="Instead of TIMBREL_HTTP_PORT.")
@bundle_option
def serve(port: int | None, bundle: Path | None) -> None:
    """Start the models in Triton and the HTTP service, and print their addresses. Ctrl-C ends both.

    \b
    The environment sets the ports and the rest; the ones most wanted:
      TIMBREL_HTTP_PORT   where HTTP listens, on 127.0.0.1 (default 3000)
      TIMBREL_GRPC_PORT   where gRPC listens, on 127.0.0.1 (default 3001)
      TIMBREL_HOST        another address to listen on
      TIMBREL_ENGINE      triton, inprocess, or auto (Triton where its wheel can run)
      TIMBREL_BUNDLE      another bundle
      TIMBREL_WORKERS     worker processes (default 2)
      TIMBREL_LOG         json: all that is written is one JSON object a line
      TIMBREL_TRACES      URL of an OpenTelemetry collector
    """
    from timbrel.serving import launcher
    from timbrel.serving.logs import JsonStream
    from timbrel.settings import LogFormat, load

    settings = load(http_port=port, bundle=bundle)
    try:
        launcher.serve(settings)
    except TimbrelError as error:
        if settings.log is LogFormat.TEXT:
            raise
        JsonStream()(error.message, level="error")
        raise SystemExit(Failure.exit_code) from None
