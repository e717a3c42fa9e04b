"""Who may ask, and how often. Knows neither HTTP nor gRPC: both ask ``Access.check`` with what the caller presents.

Every key has a bucket of ``per_minute`` requests, refilled at that rate. A bucket is a file of 16 bytes that all
processes of the service share, so that a limit holds over all workers together, and over HTTP and gRPC together.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import ipaddress
import math
import os
import struct
import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path

from timbrel.errors import ConfigurationError, TooManyRequests, Unauthorized, Unavailable
from timbrel.serving import keys
from timbrel.serving.keys import Key
from timbrel.settings import Demand, Settings, variable

_BUCKET = struct.Struct("<dd")  # requests left, and when that was counted
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
_HOW = "send one as `Authorization: Bearer KEY`; `timbrel keys create NAME` makes one"


def check_start(settings: Settings) -> None:
    """Raise ConfigurationError if keys are required and there is none."""
    if settings.needs_key and not keys.read(settings.keys_file):
        reached = [host for host in settings.hosts if not ipaddress.ip_address(host).is_loopback]
        raise ConfigurationError(
            f"listening on {(reached or settings.hosts)[0]} needs API keys, and {settings.keys_file} holds none: "
            f"make one with `timbrel keys create NAME`, or set {variable('api_keys')}=off if "
            "something else keeps strangers away"
        )


def presented_key(authorization: str) -> str | None:
    """The key in an Authorization header (or gRPC metadata): Bearer, or the password of Basic."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def passed_on(headers: Container[str]) -> bool:
    """Whether a proxy says that it passed a request on. Nothing is believed of what it says of the sender."""
    return any(name in headers for name in _FORWARDED)


def admission(settings: Settings) -> Callable[[Mapping[str, str]], object] | None:
    """What gRPC asks with a caller's metadata; None where no key is ever needed. Raises as ``Access.check``."""
    if settings.api_keys is Demand.OFF:
        return None
    access = Access.of(settings)

    def admit(metadata: Mapping[str, str]) -> None:
        if settings.needs_key or passed_on(metadata):
            access.check(presented_key(metadata.get("authorization", "")))

    return admit


class Access:
    """The keys of one file and the buckets of one folder. Thread-safe; several processes may share both."""

    def __init__(
        self, keys_file: Path, buckets: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock``: seconds, the same for all processes, and never set back while the machine runs."""
        self._file = keys_file
        self._buckets = buckets
        self._clock = clock
        self._seen: tuple[tuple[int, int, int] | None, dict[str, Key]] = (None, {})

    @classmethod
    def of(cls, settings: Settings) -> Access:
        return cls(settings.keys_file, settings.state / "rates")

    def check(self, presented: str | None) -> Key:
        """The key that is presented, one request taken from its bucket.

        Raises Unauthorized (no key, or not one of ours), TooManyRequests (its bucket is empty), Unavailable (the keys
        or the bucket cannot be read).
        """
        if not presented:
            raise Unauthorized(f"an API key is needed: {_HOW}")
        parts = keys.split(presented)
        key_id, secret = parts or ("", "")
        key = self._keys().get(key_id, keys.NOBODY)
        if not key.is_of(secret) or key is keys.NOBODY:
            raise Unauthorized(f"this API key is not known, or was revoked: {_HOW}")
        self._take(key)
        return key

    def _keys(self) -> dict[str, Key]:
        """The keys by id, read again whenever the file has changed."""
        try:
            status = os.stat(self._file)
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            return {}
        seen, found = self._seen
        if stamp != seen:
            try:
                found = {key.key_id: key for key in keys.read(self._file)}
            except ConfigurationError as error:
                raise Unavailable(error.message) from None
            self._seen = (stamp, found)
        return found

    def _take(self, key: Key) -> None:
        try:
            left = self._taken(key)
        except OSError as error:
            raise Unavailable(
                f"requests cannot be counted ({error.strerror}): see that {self._buckets} can be written"
            ) from None
        if left < 0:
            wait = math.ceil(-left * 60 / key.per_minute)
            raise TooManyRequests(
                f"the API key {key.key_id} may ask {key.per_minute} times a minute: try again in {wait} s",
                retry_after=wait,
            )

    def _taken(self, key: Key) -> float:
        """How many are left after this request; below 0 it is refused and nothing is taken."""
        self._buckets.mkdir(parents=True, exist_ok=True)
        file = os.open(self._buckets / key.key_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            now, full = self._clock(), float(key.per_minute)
            content = os.pread(file, _BUCKET.size, 0)
            left, then = _BUCKET.unpack(content) if len(content) == _BUCKET.size else (full, now)
            if not 0 <= then <= now:  # the machine was started anew
                left, then = full, now
            left = min(full, left + (now - then) * key.per_minute / 60) - 1
            if left >= 0:
                os.pwrite(file, _BUCKET.pack(left, now), 0)
            return left
        finally:
            os.close(file)
