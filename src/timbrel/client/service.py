"""A service as a client knows it: where it is, how it is asked, and whose word on its certificate is taken."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from timbrel.client.patience import Timeouts
from timbrel.errors import ConfigurationError, Unreachable

HTTP = ("http", "https")
GRPC = ("grpc", "grpcs")
_TLS = ("https", "grpcs")
# Neither library has a class for it: OpenSSL's words (the second where another authority has the name of ours), and
# gRPC's for a certificate of another host.
_DISTRUST = (
    "CERTIFICATE_VERIFY_FAILED",
    "certificate signature failure",
    "Hostname Verification Check failed",
    "not in peer certificate",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """``url`` is one that ``checked_url`` took; ``authorities`` are PEM certificates, None for those of the machine."""

    url: str
    timeouts: Timeouts
    retries: int
    headers: Mapping[str, str]
    authorities: str | None = None


def checked_url(address: str | None) -> str:
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
        known &= parts.scheme in HTTP or (parts.scheme in GRPC and bool(parts.port) and not parts.path)
    except (ValueError, AttributeError, TypeError):
        known = False
    if not known or parts.query or parts.fragment:
        raise ConfigurationError(f"{address!r} is no address: {wanted}")
    return address


def key_headers(api_key: str | None) -> dict[str, str]:
    """What is sent with every request. Raises ConfigurationError for what can be no key."""
    headers = {}
    if api_key is not None:
        if not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            raise ConfigurationError("the API key holds characters that no key has: copy it again")
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def authorities(url: str, ca_file: str | os.PathLike[str] | None) -> str | None:
    """The certificates of a file. Raises ConfigurationError if it holds none, or ``url`` shows no certificate."""
    if ca_file is None:
        return None
    if urlsplit(url).scheme not in _TLS:
        raise ConfigurationError(f"{url} speaks no TLS, so ca_file has no use: write https:// or grpcs://")
    try:
        pem = Path(ca_file).read_text(encoding="ascii")
        store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        store.load_verify_locations(cadata=pem)
        if not store.cert_store_stats()["x509"]:
            raise ValueError("none is in it")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ConfigurationError(f"{os.fspath(ca_file)} holds no certificates in PEM ({error})") from None
    return pem


def untrusted(url: str, reason: str) -> Unreachable | None:
    """The error for a connection that failed for ``reason``, if that is the service's certificate.

    Asking again does not help, so it is never wrapped in ``Refused``.
    """
    if not any(words in reason for words in _DISTRUST):
        return None
    return Unreachable(
        f"the certificate of {url} is not trusted ({reason}): check the address; if the certificate is of an "
        "authority of your own, name that one's certificate as ca_file"
    )
