"""From what a caller names, an address or a bundle, to the transport that answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict, Unpack

from timbrel.client.patience import Timeouts, checked_retries
from timbrel.client.service import GRPC, Service, authorities, checked_url, key_headers
from timbrel.client.transport import AsyncTransport, Transport
from timbrel.errors import ConfigurationError

DEFAULT_TIMEOUTS = Timeouts()
DEFAULT_RETRIES = 2


class Options(TypedDict, total=False):
    """How to ask a service: see ``Client``."""

    timeout: float | Timeouts
    retries: int
    api_key: str | None
    ca_file: str | os.PathLike[str] | None


Bundle = str | os.PathLike[str] | None


def transport(address: str | None, bundle: Bundle, **options: Unpack[Options]) -> Transport:
    """Each way is imported only when it is taken: a client of a service needs no onnxruntime."""
    chosen = _chosen(address, bundle, **options)
    if isinstance(chosen, Path):
        from timbrel.client.local import LocalTransport

        return LocalTransport.open(chosen)
    if chosen.url.startswith(GRPC):
        from timbrel.client.grpc import GrpcTransport

        return GrpcTransport(chosen)
    from timbrel.client.http import HttpTransport

    return HttpTransport(chosen)


def async_transport(address: str | None, bundle: Bundle, **options: Unpack[Options]) -> AsyncTransport:
    """The same for an event loop."""
    chosen = _chosen(address, bundle, **options)
    if isinstance(chosen, Path):
        from timbrel.client.local import AsyncLocalTransport, LocalTransport

        return AsyncLocalTransport(LocalTransport.open(chosen))
    if chosen.url.startswith(GRPC):
        from timbrel.client.grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(chosen)
    from timbrel.client.http import AsyncHttpTransport

    return AsyncHttpTransport(chosen)


def _chosen(
    address: str | None,
    bundle: Bundle,
    *,
    timeout: float | Timeouts = DEFAULT_TIMEOUTS,
    retries: int = DEFAULT_RETRIES,
    api_key: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
) -> Service | Path:
    """The service, or the folder of a bundle. Raises ConfigurationError or InputError."""
    timeouts, retries = Timeouts.of(timeout), checked_retries(retries)
    if bundle is not None:
        if address is not None:
            raise ConfigurationError("name an address or a bundle, not both")
        return Path(bundle)
    url = checked_url(address)
    return Service(
        url=url,
        timeouts=timeouts,
        retries=retries,
        headers=key_headers(api_key),
        authorities=authorities(url, ca_file),
    )
