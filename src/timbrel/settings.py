"""What the environment may set when Timbrel serves: one variable per port, address, path and bound.

    variable                     default          meaning
    TIMBREL_HOST                 127.0.0.1        address the HTTP service listens on (an IP address)
    TIMBREL_HTTP_PORT            3000             port of the HTTP service
    TIMBREL_GRPC                 true             whether the gRPC service (timbrel.v1) is opened as well
    TIMBREL_GRPC_HOST            127.0.0.1        address it listens on (an IP address)
    TIMBREL_GRPC_PORT            3001             its port, one for all workers
    TIMBREL_ENGINE               auto             triton | inprocess | auto (Triton where its wheel can run)
    TIMBREL_TRITON_URL           (empty)          host:port (gRPC) of a Triton that already runs; none is started then
    TIMBREL_TRITON_HTTP_PORT     8000             ports of the Triton that `timbrel serve` starts, on loopback
    TIMBREL_TRITON_GRPC_PORT     8001
    TIMBREL_TRITON_METRICS_PORT  8002
    TIMBREL_BUNDLE               bundle           folder of the bundle that is served
    TIMBREL_MODEL_REPOSITORY     model_repository folder of the Triton configurations
    TIMBREL_ENCODERS             (empty)          folder of exported encoders, for Triton to serve beside the bundle
    TIMBREL_STATE                .timbrel         folder for logs and run-time files
    TIMBREL_WORKERS              2                worker processes of the HTTP service
    TIMBREL_THREADS              2                computations at the same time, per worker
    TIMBREL_QUEUE                30               requests that may wait for a thread, per worker
    TIMBREL_DEADLINE_SECONDS     30               longest time that one answer may take, its upload not counted
    TIMBREL_MAX_UPLOAD_MIB       64               largest recording, in MiB
    TIMBREL_MAX_SECONDS          60               longest recording, in seconds
    TIMBREL_API_KEYS             auto             on | off | auto (required unless only this machine can ask)
    TIMBREL_KEYS_FILE            keys.json        the keys' hashes, below .timbrel; `timbrel keys` writes it
    TIMBREL_CORS_ORIGINS         (empty)          origins whose web pages may ask (https://a.example), commas between
    TIMBREL_SERVER_NAMES         (empty)          names besides localhost that the service answers to without a key

Relative default paths start at the folder that holds ``src/``: the repository, or the root of a built Bento.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from timbrel.audio import Limits
from timbrel.errors import ConfigurationError

PREFIX = "TIMBREL_"
ROOT = Path(__file__).resolve().parents[2]


class EngineKind(StrEnum):
    AUTO = "auto"
    TRITON = "triton"
    INPROCESS = "inprocess"


class Demand(StrEnum):
    """Whether an API key is asked for."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Settings(BaseModel):
    """The serving settings, validated whole. Field ``x`` is the variable ``TIMBREL_X``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    http_port: int = Field(3000, ge=1, le=65535)
    grpc: bool = True
    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(3001, ge=1, le=65535)
    engine: EngineKind = EngineKind.AUTO
    triton_url: str = ""
    triton_http_port: int = Field(8000, ge=1, le=65535)
    triton_grpc_port: int = Field(8001, ge=1, le=65535)
    triton_metrics_port: int = Field(8002, ge=1, le=65535)
    bundle: Path = ROOT / "bundle"
    model_repository: Path = ROOT / "model_repository"
    encoders: Path | None = None
    state: Path = ROOT / ".timbrel"
    workers: int = Field(2, ge=1, le=64)
    threads: int = Field(2, ge=1, le=64)
    queue: int = Field(30, ge=0, le=10_000)
    deadline_seconds: float = Field(30.0, gt=0, le=600)
    max_upload_mib: float = Field(64.0, gt=0, le=1024)
    max_seconds: float = Field(60.0, gt=0, le=3600)
    api_keys: Demand = Demand.AUTO
    keys_file: Path = ROOT / ".timbrel" / "keys.json"
    cors_origins: str = ""
    server_names: str = ""

    @field_validator("host", "grpc_host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        # Servers listen on addresses, not on names.
        ipaddress.ip_address(host)
        return host

    @field_validator("triton_url")
    @classmethod
    def _is_host_and_port(cls, url: str) -> str:
        if url and (not url.rpartition(":")[0] or not url.rpartition(":")[2].isdigit() or "/" in url):
            raise ValueError("must be host:port of Triton's gRPC endpoint, such as 127.0.0.1:8001")
        return url

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in _listed(text):
            if not re.fullmatch(
                r"https?://[A-Za-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?", origin
            ):
                raise ValueError(
                    f"{origin!r} is no origin: write https://host[:port], commas between several"
                )
        return text

    @field_validator("bundle", "model_repository", "encoders", "state", "keys_file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # The workers run in another folder than the person who named a relative path.
        return path.expanduser().absolute() if path is not None else None

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        taken: dict[int, str] = {}
        names = ["http_port", "triton_http_port", "triton_grpc_port", "triton_metrics_port"]
        for name in [*names, *(["grpc_port"] if self.grpc else [])]:
            port = getattr(self, name)
            if port in taken:
                raise ValueError(f"{variable(taken[port])} and {variable(name)} are both {port}")
            taken[port] = name
        return self

    @property
    def limits(self) -> Limits:
        """What a recording may be."""
        return Limits(max_bytes=int(self.max_upload_mib * 2**20), max_seconds=self.max_seconds)

    @property
    def needs_key(self) -> bool:
        """Whether every request needs an API key, whichever way it comes."""
        if self.api_keys is Demand.AUTO:
            return not all(ipaddress.ip_address(host).is_loopback for host in self.hosts)
        return self.api_keys is Demand.ON

    @property
    def hosts(self) -> list[str]:
        """The addresses that are listened on."""
        return [self.host, self.grpc_host] if self.grpc else [self.host]

    @property
    def origins(self) -> list[str]:
        """The origins whose web pages may ask."""
        return _listed(self.cors_origins)

    @property
    def names(self) -> list[str]:
        """Host names besides localhost that are answered without a key."""
        return [name.lower() for name in _listed(self.server_names)]

    @property
    def url(self) -> str:
        """Where the HTTP service answers."""
        return f"http://{_bracketed(self.host)}:{self.http_port}"

    @property
    def grpc_target(self) -> str:
        """Where the gRPC service answers: host:port."""
        return f"{_bracketed(self.grpc_host)}:{self.grpc_port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def variable(field: str) -> str:
    """Name of the environment variable behind a field of ``Settings``."""
    return PREFIX + field.upper()


def load(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; ``overrides`` (command-line options; None means not given) win.

    Raises ConfigurationError that lists every problem on a line of its own.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = environment.get(variable(name), "")
        if text.strip():
            values[name] = text.strip()
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_line(problem) for problem in error.errors())) from None


def _line(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    return f"{variable(str(problem['loc'][0]))}: {message} (got {problem['input']!r})"
