"""What the environment may set when Timbrel serves: one variable per port, address, path and bound.

Field ``x`` of ``Settings`` is the variable ``TIMBREL_X``; `docs/reference/settings.md` lists them. Relative default
paths start at the folder that holds ``src/``: the repository, or the root of a built Bento.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from timbrel.audio import Limits
from timbrel.errors import ConfigurationError
from timbrel.library import champion

PREFIX = "TIMBREL_"
ROOT = Path(__file__).resolve().parents[2]


class EngineKind(StrEnum):
    AUTO = "auto"
    TRITON = "triton"
    INPROCESS = "inprocess"


class TritonDevice(StrEnum):
    """What a Triton's configurations are made for; see ``timbrel.serving.triton_devices``."""

    AUTO = "auto"
    GPU = "gpu"
    TENSORRT = "tensorrt"
    TENSORRT_FP16 = "tensorrt-fp16"


class IndexKind(StrEnum):
    BUNDLE = "bundle"
    MILVUS = "milvus"


class Demand(StrEnum):
    """Whether an API key is asked for."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class Settings(BaseModel):
    """The serving settings, validated whole. What stands below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address that HTTP listens on: an IP address."""
    http_port: int = Field(3000, ge=1, le=65535)
    """Port of the HTTP service."""
    grpc: bool = True
    """Whether gRPC (timbrel.v1) is opened as well."""
    grpc_host: str = "127.0.0.1"
    """Address that gRPC listens on: an IP address."""
    grpc_port: int = Field(3001, ge=1, le=65535)
    """Port of gRPC, one for all workers."""
    engine: EngineKind = EngineKind.AUTO
    """What runs the models: Triton, the workers themselves, or auto: Triton where its wheel can run."""
    triton_url: str = ""
    """host:port (gRPC) of a Triton that already runs; none is started then."""
    triton_repository: Path | None = None
    """Folder that it reads its models from: it gets those of the bundle."""
    triton_device: TritonDevice = TritonDevice.AUTO
    """What they are to run on there."""
    triton_http_port: int = Field(8000, ge=1, le=65535)
    """HTTP port of the Triton that `timbrel serve` starts, on loopback."""
    triton_grpc_port: int = Field(8001, ge=1, le=65535)
    """Its gRPC port."""
    triton_metrics_port: int = Field(8002, ge=1, le=65535)
    """The port of its metrics."""
    prometheus_port: int = Field(9090, ge=1, le=65535)
    """Port of the Prometheus that `make monitor` starts, on loopback."""
    alertmanager_port: int = Field(9093, ge=1, le=65535)
    """Port of its Alertmanager."""
    bundle: Path = ROOT / "bundle"
    """Folder of the bundle that is served. Not set: the champion, where one was promoted."""
    model_repository: Path = ROOT / "model_repository"
    """Folder of the Triton configurations."""
    encoders: Path | None = None
    """Folder of exported encoders (`timbrel encoders`), for Triton to serve beside the bundle."""
    index: IndexKind = IndexKind.BUNDLE
    """Where a search's first stage is answered: from the bundle, or by a Milvus."""
    milvus_uri: str = ""
    """http(s)://host:port of a Milvus that `timbrel index push` has filled."""
    milvus_token: str = Field("", repr=False)
    """user:password or token for it."""
    state: Path = ROOT / ".timbrel"
    """Folder for logs and run-time files."""
    registry: Path = ROOT
    """Folder of MLflow's store, and of `live/`: what was promoted."""
    workers: int = Field(2, ge=1, le=64)
    """Worker processes of the service."""
    threads: int = Field(2, ge=1, le=64)
    """Computations at the same time, for each worker."""
    queue: int = Field(30, ge=0, le=10_000)
    """Requests that may wait for a thread, for each worker; more get 503."""
    deadline_seconds: float = Field(30.0, gt=0, le=600)
    """Longest time that one answer may take, its upload not counted."""
    max_upload_mib: float = Field(64.0, gt=0, le=1024)
    """Largest recording, in MiB."""
    max_seconds: float = Field(60.0, gt=0, le=3600)
    """Longest recording, in seconds."""
    log: LogFormat = LogFormat.TEXT
    """Form of all that is logged."""
    traces: str = ""
    """URL of an OpenTelemetry collector (OTLP over HTTP); empty: no traces."""
    trace_share: float = Field(1.0, ge=0, le=1)
    """Share of the requests that are traced, unless the caller says."""
    checked_share: float = Field(0.05, ge=0, le=1)
    """Share of the notes made whose pitch is measured, for the metrics."""
    api_keys: Demand = Demand.AUTO
    """Whether an API key is asked for; auto: unless only this machine can ask."""
    keys_file: Path = ROOT / ".timbrel" / "keys.json"
    """Where the keys' hashes lie; `timbrel keys` writes it."""
    cors_origins: str = ""
    """Origins whose web pages may ask (https://a.example), commas between."""
    server_names: str = ""
    """Names besides localhost that the service answers to without a key, commas between."""
    _follows: bool = PrivateAttr(default=False)

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

    @field_validator("traces")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s/?#@,]+(/[^\s?#,]*)?", url):
            raise ValueError("must be the URL of a collector, such as http://127.0.0.1:4318")
        return url.rstrip("/").removesuffix("/v1/traces")

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

    @field_validator(
        "triton_repository", "bundle", "model_repository", "encoders", "state", "registry", "keys_file"
    )
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # The workers run in another folder than the person who named a relative path.
        return path.expanduser().absolute() if path is not None else None

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        taken: dict[int, str] = {}
        names = ["http_port", "triton_http_port", "triton_grpc_port", "triton_metrics_port"]
        names += ["prometheus_port", "alertmanager_port"]
        for name in [*names, *(["grpc_port"] if self.grpc else [])]:
            port = getattr(self, name)
            if port in taken:
                raise ValueError(f"{variable(taken[port])} and {variable(name)} are both {port}")
            taken[port] = name
        return self

    @model_validator(mode="after")
    def _milvus_is_named(self) -> Settings:
        if self.index is IndexKind.MILVUS:
            if not self.milvus_uri:
                raise ValueError("TIMBREL_INDEX is milvus, and TIMBREL_MILVUS_URI does not say where it is")
            if "://" not in self.milvus_uri and self.workers > 1:
                raise ValueError(
                    "TIMBREL_MILVUS_URI is a file, which one process can open: set TIMBREL_WORKERS to 1, or start "
                    "`milvus-lite server` on it"
                )
        return self

    @property
    def live(self) -> Path:
        """The folder that says which bundle is the champion; see ``timbrel.library.champion``."""
        return self.registry / "live"

    @property
    def follows_champion(self) -> bool:
        """Whether a promotion changes what is served: nobody named another bundle."""
        return self._follows

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

    Where neither names a bundle it is the champion's; where nothing was ever promoted, the repository's.

    Raises ConfigurationError that lists every problem on a line of its own; BundleError if it cannot be read which
    bundle is the champion.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = environment.get(variable(name), "")
        if text.strip():
            values[name] = text.strip()
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_line(problem) for problem in error.errors())) from None
    if "bundle" in values:
        return settings
    live = champion.read(settings.live)
    if live is not None:
        settings = settings.model_copy(update={"bundle": settings.live / live.champion})
    settings._follows = True
    return settings


def _line(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    return f"{variable(str(problem['loc'][0]))}: {message} (got {problem['input']!r})"
