"""Settings: every variable is read, and every problem is named, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from timbrel import settings
from timbrel.errors import ConfigurationError
from timbrel.settings import Demand, EngineKind, IndexKind, LogFormat, Settings, TritonDevice


def test_defaults_without_any_variable() -> None:
    loaded = settings.load({})
    assert loaded.url == "http://127.0.0.1:3000"
    assert (loaded.grpc, loaded.grpc_target) == (True, "127.0.0.1:3001")
    assert (loaded.triton_http_port, loaded.triton_grpc_port, loaded.triton_metrics_port) == (
        8000,
        8001,
        8002,
    )
    assert loaded.engine is EngineKind.AUTO
    assert loaded.limits.max_bytes == 64 * 2**20
    assert loaded.limits.max_seconds == 60.0
    assert loaded.bundle.name == "bundle"
    assert loaded.bundle.is_absolute()


def test_every_field_has_its_variable() -> None:
    environment = {
        "TIMBREL_HOST": "::1",
        "TIMBREL_HTTP_PORT": "4000",
        "TIMBREL_GRPC": "false",
        "TIMBREL_GRPC_HOST": "::1",
        "TIMBREL_GRPC_PORT": "4001",
        "TIMBREL_ENGINE": "inprocess",
        "TIMBREL_TRITON_URL": "gpu.example:8001",
        "TIMBREL_TRITON_REPOSITORY": "/some/repository",
        "TIMBREL_TRITON_DEVICE": "tensorrt-fp16",
        "TIMBREL_TRITON_HTTP_PORT": "9000",
        "TIMBREL_TRITON_GRPC_PORT": "9001",
        "TIMBREL_TRITON_METRICS_PORT": "9002",
        "TIMBREL_PROMETHEUS_PORT": "9003",
        "TIMBREL_ALERTMANAGER_PORT": "9004",
        "TIMBREL_BUNDLE": "/some/bundle",
        "TIMBREL_MODEL_REPOSITORY": "/some/models",
        "TIMBREL_ENCODERS": "/some/encoders",
        "TIMBREL_STATE": "/some/state",
        "TIMBREL_REGISTRY": "/some/registry",
        "TIMBREL_INDEX": "milvus",
        "TIMBREL_MILVUS_URI": "http://milvus:19530",
        "TIMBREL_MILVUS_TOKEN": "user:secret",
        "TIMBREL_WORKERS": "3",
        "TIMBREL_THREADS": "4",
        "TIMBREL_QUEUE": "5",
        "TIMBREL_DEADLINE_SECONDS": "6.5",
        "TIMBREL_MAX_UPLOAD_MIB": "7",
        "TIMBREL_MAX_SECONDS": "8",
        "TIMBREL_LOG": "json",
        "TIMBREL_TRACES": "http://collector:4318",
        "TIMBREL_TRACE_SHARE": "0.1",
        "TIMBREL_CHECKED_SHARE": "0.25",
        "TIMBREL_API_KEYS": "off",
        "TIMBREL_KEYS_FILE": "/some/keys.json",
        "TIMBREL_CORS_ORIGINS": "https://a.example, http://localhost:5173",
        "TIMBREL_SERVER_NAMES": "studio.lan",
    }
    assert set(environment) == {settings.variable(name) for name in Settings.model_fields}
    loaded = settings.load(environment)
    assert loaded.url == "http://[::1]:4000"
    assert loaded.grpc_target == "[::1]:4001"
    assert loaded.model_dump() == {
        "host": "::1",
        "http_port": 4000,
        "grpc": False,
        "grpc_host": "::1",
        "grpc_port": 4001,
        "engine": EngineKind.INPROCESS,
        "triton_url": "gpu.example:8001",
        "triton_repository": Path("/some/repository"),
        "triton_device": TritonDevice.TENSORRT_FP16,
        "triton_http_port": 9000,
        "triton_grpc_port": 9001,
        "triton_metrics_port": 9002,
        "prometheus_port": 9003,
        "alertmanager_port": 9004,
        "bundle": Path("/some/bundle"),
        "model_repository": Path("/some/models"),
        "encoders": Path("/some/encoders"),
        "state": Path("/some/state"),
        "registry": Path("/some/registry"),
        "index": IndexKind.MILVUS,
        "milvus_uri": "http://milvus:19530",
        "milvus_token": "user:secret",
        "workers": 3,
        "threads": 4,
        "queue": 5,
        "deadline_seconds": 6.5,
        "max_upload_mib": 7.0,
        "max_seconds": 8.0,
        "log": LogFormat.JSON,
        "traces": "http://collector:4318",
        "trace_share": 0.1,
        "checked_share": 0.25,
        "api_keys": Demand.OFF,
        "keys_file": Path("/some/keys.json"),
        "cors_origins": "https://a.example, http://localhost:5173",
        "server_names": "studio.lan",
    }
    assert loaded.origins == ["https://a.example", "http://localhost:5173"]


def test_all_problems_at_once_one_line_each() -> None:
    environment = {
        "TIMBREL_HTTP_PORT": "70000",
        "TIMBREL_HOST": "localhost",
        "TIMBREL_ENGINE": "gpu",
        "TIMBREL_WORKERS": "many",
        "TIMBREL_TRITON_URL": "http://somewhere",
    }
    with pytest.raises(ConfigurationError) as caught:
        settings.load(environment)
    lines = caught.value.message.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(environment)
    assert all(repr(environment[line.split(":")[0]]) in line for line in lines)


def test_two_equal_ports_are_named() -> None:
    with pytest.raises(
        ConfigurationError, match="TIMBREL_HTTP_PORT and TIMBREL_TRITON_GRPC_PORT are both 8001"
    ):
        settings.load({"TIMBREL_HTTP_PORT": "8001"})
    with pytest.raises(ConfigurationError, match="TIMBREL_HTTP_PORT and TIMBREL_GRPC_PORT are both 3001"):
        settings.load({"TIMBREL_HTTP_PORT": "3001"})
    assert settings.load({"TIMBREL_HTTP_PORT": "3001", "TIMBREL_GRPC": "false"}).http_port == 3001


def test_relative_paths_start_where_the_person_is() -> None:
    loaded = settings.load({"TIMBREL_BUNDLE": "some/bundle"}, state=Path("state"))
    assert loaded.bundle == Path.cwd() / "some" / "bundle"
    assert loaded.state == Path.cwd() / "state"


def test_options_win_over_the_environment_and_blank_means_not_set() -> None:
    loaded = settings.load({"TIMBREL_HTTP_PORT": "4000", "TIMBREL_WORKERS": " "}, http_port=5000, state=None)
    assert loaded.http_port == 5000
    assert loaded.workers == 2


@pytest.mark.parametrize(
    "origins", ["*", "a.example", "https://a.example/", "https://a.example https://b.example"]
)
def test_origins_are_named_one_by_one(origins: str) -> None:
    with pytest.raises(ConfigurationError, match="is no origin: write https://host"):
        settings.load({"TIMBREL_CORS_ORIGINS": origins})


@pytest.mark.parametrize(
    ("host", "asked", "needed"),
    [
        ("127.0.0.1", "auto", False),
        ("::1", "auto", False),
        ("0.0.0.0", "auto", True),
        ("10.0.0.7", "auto", True),
        ("0.0.0.0", "off", False),
        ("127.0.0.1", "on", True),
    ],
)
def test_keys_are_needed_beyond_loopback_unless_said_otherwise(host: str, asked: str, needed: bool) -> None:
    assert settings.load({"TIMBREL_HOST": host, "TIMBREL_API_KEYS": asked}).needs_key is needed


def test_a_grpc_service_that_others_reach_needs_keys_as_well() -> None:
    assert settings.load({"TIMBREL_GRPC_HOST": "0.0.0.0"}).needs_key
    assert not settings.load({"TIMBREL_GRPC_HOST": "0.0.0.0", "TIMBREL_GRPC": "false"}).needs_key
