"""From what a caller names, an address or a bundle, to the transport that answers."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from timbrel.client.patience import Timeouts, checked_retries
from timbrel.client.transport import AsyncTransport, Transport
from timbrel.errors import ConfigurationError

_HTTP = ("http", "https")
_GRPC = ("grpc", "grpcs")
Bundle = str | os.PathLike[str] | None


def transport(
    address: str | None, bundle: Bundle, timeout: float | Timeouts, retries: int, api_key: str | None
) -> Transport:
    """Each way is imported only when it is taken: a client of a service needs no onnxruntime."""
    timeouts, retries = Timeouts.of(timeout), checked_retries(retries)
    if bundle is not None:
        _only(address)
        from timbrel.client.local import LocalTransport

        return LocalTransport.open(bundle)
    url = _checked(address)
    if url.startswith(_GRPC):
        from timbrel.client.grpc import GrpcTransport

        return GrpcTransport(url, timeouts, retries, _headers(api_key))
    from timbrel.client.http import HttpTransport

    return HttpTransport(url, timeouts, retries, _headers(api_key))


def async_transport(
    address: str | None, bundle: Bundle, timeout: float | Timeouts, retries: int, api_key: str | None
) -> AsyncTransport:
    """The same for an event loop."""
    timeouts, retries = Timeouts.of(timeout), checked_retries(retries)
    if bundle is not None:
        _only(address)
        from timbrel.client.local import AsyncLocalTransport, LocalTransport

        return AsyncLocalTransport(LocalTransport.open(bundle))
    url = _checked(address)
    if url.startswith(_GRPC):
        from timbrel.client.grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(url, timeouts, retries, _headers(api_key))
    from timbrel.client.http import AsyncHttpTransport

    return AsyncHttpTransport(url, timeouts, retries, _headers(api_key))


def _only(address: str | None) -> None:
    if address is not None:
        raise ConfigurationError("name an address or a bundle, not both")


def _checked(address: str | None) -> str:
    """The address, if it is one. Raises ConfigurationError."""
    wanted = (
        'name a service, such as Client("http://127.0.0.1:3000") or Client("grpc://127.0.0.1:3001"), or a folder, '
        'as Client(bundle="bundle")'
    )
    if address is None:
        raise ConfigurationError(wanted)
    try:
        parts = urlsplit(address)
        known = bool(parts.hostname) and parts.port != 0
        known &= parts.scheme in _HTTP or (parts.scheme in _GRPC and bool(parts.port) and not parts.path)
    except (ValueError, AttributeError, TypeError):
        known = False
    if not known or parts.query or parts.fragment:
        raise ConfigurationError(f"{address!r} is no address: {wanted}")
    return address


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {}
    if api_key is not None:
        if not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            raise ConfigurationError("the API key holds characters that no key has: copy it again")
        headers["authorization"] = f"Bearer {api_key}"
    return headers
