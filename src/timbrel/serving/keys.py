"""The file of API keys: what `timbrel keys` writes and the service reads.

    {"keys": [{"key_id": "3f9a…", "name": "studio", "salt": "…", "digest": "…", "per_minute": 600, "created": "…"}]}

A key is ``timbrel_<key_id>_<secret>``. Of its secret, 256 random bits, only a salted SHA-256 is kept: nothing that long
can be guessed, so a slow hash would only slow the service.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from timbrel.errors import ConfigurationError, NotFound
from timbrel.files import atomic_write

PER_MINUTE = 600
"""Requests per minute of a key that says nothing else."""
_SHAPE = re.compile(r"timbrel_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Key(BaseModel):
    """One API key, without its secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str = Field(pattern="^[0-9a-f]{12}$")
    name: str
    salt: str = Field(pattern="^[0-9a-f]{32}$")
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    per_minute: int = Field(ge=1, le=1_000_000)
    created: str

    def is_of(self, secret: str) -> bool:
        """Whether the secret is this key's; takes as long when it is not."""
        return hmac.compare_digest(_digest(self.salt, secret), self.digest)


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()


# Compared with where no key has the id, so that ids cannot be told by the time of an answer.
NOBODY = Key(
    key_id="0" * 12, name="nobody", salt="0" * 32, digest="0" * 64, per_minute=1, created=""
)  # fmt: skip


def split(presented: str) -> tuple[str, str] | None:
    """The id and the secret of what a caller presents; None if it is no key at all."""
    match = _SHAPE.fullmatch(presented)
    return (match[1], match[2]) if match else None


def read(path: Path) -> tuple[Key, ...]:
    """The keys of the file; none where there is no file. Raises ConfigurationError if it cannot be read."""
    try:
        content = _Content.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not what `timbrel keys` writes"
        raise ConfigurationError(f"the API keys in {path} cannot be read ({reason})") from None
    return content.keys


def create(path: Path, name: str, *, per_minute: int = PER_MINUTE) -> tuple[Key, str]:
    """Add a key; returns it, and what the caller presents, which is kept nowhere."""
    secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
    key = Key(
        key_id=secrets.token_hex(6),
        name=name,
        salt=salt,
        digest=_digest(salt, secret),
        per_minute=per_minute,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with _locked(path):
        _write(path, (*read(path), key))
    return key, f"timbrel_{key.key_id}_{secret}"


def revoke(path: Path, key_id: str) -> Key:
    """Remove a key; running services refuse it from now on. Raises NotFound."""
    with _locked(path):
        keys = read(path)
        found = next((key for key in keys if key.key_id == key_id), None)
        if found is None:
            raise NotFound(f"there is no API key {key_id!r}: `timbrel keys list` shows which there are")
        _write(path, tuple(key for key in keys if key is not found))
    return found


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    text = json.dumps(_Content(keys=keys).model_dump(), indent=2) + "\n"
    with atomic_write(path, mode=0o600) as handle:
        handle.write(text.encode())
