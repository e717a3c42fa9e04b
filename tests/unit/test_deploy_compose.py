"""deploy/compose.yaml: read by Docker's own program, and by value what it promises."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.compose import DEPLOY, compose
from support.tools import tool

from timbrel import settings
from timbrel.serving.triton_devices import TIMING_CACHE
from timbrel.settings import ROOT, EngineKind, Settings, TritonDevice

CPU = "compose.cpu.yaml"
SERVICES = {"prepare", "triton", "timbrel", "prometheus", "alertmanager", "grafana", "mlflow"}
needs_monitoring = pytest.mark.skipif(not (ROOT / "monitoring").is_dir(), reason="monitoring/ is not here")


@pytest.fixture(scope="module")
def gpu() -> dict[str, Any]:
    return compose()


@pytest.fixture(scope="module")
def cpu() -> dict[str, Any]:
    return compose(CPU)


def _environment(configuration: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = configuration["services"]["timbrel"]["environment"]
    return {name: value for name, value in found.items() if name.startswith("TIMBREL_")}


def test_everything_of_the_issue_is_there(gpu: dict[str, Any], cpu: dict[str, Any]) -> None:
    assert set(gpu["services"]) == SERVICES
    assert set(cpu["services"]) == SERVICES - {"triton"}


def test_what_must_be_given_is_asked_for() -> None:
    command = [
        tool("docker-compose"),
        "--env-file",
        "/dev/null",
        "-f",
        str(DEPLOY / "compose.yaml"),
        "config",
        "-q",
    ]
    told = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert re.search("TIMBREL_(IMAGE|REGISTRY|OWNER)", told.stderr)


def test_the_example_names_every_variable_and_no_other() -> None:
    files = "".join((DEPLOY / name).read_text() for name in ("compose.yaml", CPU))
    used = set(re.findall(r"\$\{(\w+)", files))
    named = set(re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert named == used


def test_images_are_pinned(gpu: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in gpu["services"].items()}
    assert images["timbrel"] == images["prepare"] == "timbrel-service:1.0"
    assert images["triton"] == "nvcr.io/nvidia/tritonserver:25.10-py3"
    for image in images.values():
        assert re.search(r":v?\d+\.\d+", image), image
    # The server of the store's own version: another one would change its tables.
    locked = (ROOT / "requirements" / "pipeline.lock").read_text()
    assert f"mlflow=={images['mlflow'].rpartition(':v')[2]}\n" in locked


def test_nothing_is_published_but_on_loopback(gpu: dict[str, Any]) -> None:
    published = {}
    for name, service in gpu["services"].items():
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
            published[int(port["published"])] = (name, port["target"])
    assert published == {
        3000: ("timbrel", 3000),
        3001: ("timbrel", 3001),
        3030: ("grafana", 3000),
        5000: ("mlflow", 5000),
        9090: ("prometheus", 9090),
        9093: ("alertmanager", 9093),
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_may_as_little_as_it_can(gpu: dict[str, Any], name: str) -> None:
    service = gpu["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    user, _, group = service["user"].partition(":")
    assert user.isdigit()
    assert group.isdigit()
    if name == "prepare":
        # It gives the volumes away, reaches nothing, and ends.
        assert service["network_mode"] == "none"
        assert service["cap_add"] == ["CHOWN", "FOWNER", "DAC_OVERRIDE"]
        assert "restart" not in service
    else:
        assert int(user) > 0
        assert "cap_add" not in service
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["logging"]["options"]["max-size"] == "20m"


def test_what_is_started_waits_for_what_it_needs(gpu: dict[str, Any], cpu: dict[str, Any]) -> None:
    def conditions(configuration: dict[str, Any], name: str) -> dict[str, str]:
        needed = configuration["services"][name].get("depends_on", {})
        return {other: each["condition"] for other, each in needed.items()}

    prepared = {"prepare": "service_completed_successfully"}
    assert conditions(gpu, "triton") == prepared
    assert conditions(gpu, "timbrel") == prepared | {"triton": "service_healthy"}
    assert conditions(cpu, "timbrel") == prepared


def test_triton_has_the_gpu_and_only_the_service_reaches_it(gpu: dict[str, Any]) -> None:
    triton = gpu["services"]["triton"]
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert "ports" not in triton
    assert all(gpu["networks"][name]["internal"] for name in triton["networks"])
    assert {name for name, each in gpu["services"].items() if "models" in each.get("networks", {})} == {
        "triton",
        "timbrel",
    }
    others = [each for name, each in gpu["services"].items() if name != "triton"]
    assert not any("reservations" in each["deploy"]["resources"] for each in others)


def test_triton_reads_the_models_that_the_service_writes(gpu: dict[str, Any]) -> None:
    triton, service = gpu["services"]["triton"], gpu["services"]["timbrel"]
    reads = {each["source"]: each for each in triton["volumes"]}
    writes = {each["source"]: each for each in service["volumes"]}
    assert reads["models"]["read_only"] is True
    assert "read_only" not in writes["models"]
    assert f"--model-repository={reads['models']['target']}" in triton["command"]
    chosen = settings.load(_environment(gpu))
    assert chosen.triton_repository == Path(writes["models"]["target"])
    assert f"--grpc-port={chosen.triton_url.partition('triton:')[2]}" in triton["command"]
    assert reads["tensorrt"]["target"] == TIMING_CACHE
    # What `prepare` gives away is what these users write.
    given = gpu["services"]["prepare"]["command"][0]
    assert f"--owner={service['user'].partition(':')[0]} --group=1034 --mode=0755 /models" in given
    assert f"--owner={triton['user'].partition(':')[0]} --group=1000 --mode=0755 /tensorrt" in given


def test_the_service_takes_its_settings(gpu: dict[str, Any], cpu: dict[str, Any]) -> None:
    for configuration in (gpu, cpu):
        environment = _environment(configuration)
        assert set(environment) <= {settings.variable(name) for name in Settings.model_fields}
        chosen = settings.load(environment)
        assert chosen.needs_key
        assert (chosen.host, chosen.http_port, chosen.grpc_port) == ("0.0.0.0", 3000, 3001)
        assert chosen.keys_file.parent == chosen.state
        targets = {each["target"] for each in configuration["services"]["timbrel"]["volumes"]}
        assert {str(chosen.state), str(chosen.registry / "live")} <= targets
    chosen = settings.load(_environment(gpu))
    assert (chosen.engine, chosen.triton_device) == (EngineKind.TRITON, TritonDevice.GPU)
    chosen = settings.load(_environment(cpu))
    assert (chosen.engine, chosen.triton_url, chosen.triton_repository) == (EngineKind.INPROCESS, "", None)
    tensorrt = compose(TIMBREL_TRITON_DEVICE="tensorrt")
    assert settings.load(_environment(tensorrt)).triton_device is TritonDevice.TENSORRT


def test_secrets_are_files(gpu: dict[str, Any]) -> None:
    assert {name: Path(each["file"]).parent for name, each in gpu["secrets"].items()} == {
        "metrics_key": DEPLOY / "secrets",
        "grafana_password": DEPLOY / "secrets",
    }
    for service in gpu["services"].values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|_KEY$", name):
                assert value.startswith("/run/secrets/"), name
    assert [path.name for path in (DEPLOY / "secrets").iterdir() if path.name != ".gitignore"] == []
    assert (DEPLOY / "secrets" / ".gitignore").read_text().splitlines()[0] == "*"


@needs_monitoring
@pytest.mark.parametrize("overrides", [(), (CPU,)], ids=["gpu", "cpu"])
def test_every_mounted_path_is_there(overrides: tuple[str, ...]) -> None:
    configuration = compose(*overrides)
    for name, service in configuration["services"].items():
        for mount in service.get("volumes", ()):
            source = Path(mount["source"])
            if mount["type"] == "bind" and source.is_relative_to(ROOT):
                assert source.exists(), name
                assert mount["read_only"] is True, name
            elif mount["type"] == "volume":
                assert mount["source"] in configuration["volumes"], name


@pytest.mark.parametrize(("overrides", "folder"), [((), "targets"), ((CPU,), "targets-cpu")])
def test_prometheus_scrapes_what_there_is(overrides: tuple[str, ...], folder: str) -> None:
    configuration = compose(*overrides)
    services = configuration["services"]
    mounted = {each["target"]: Path(each["source"]) for each in services["prometheus"]["volumes"]}
    assert mounted["/etc/prometheus/targets"] == DEPLOY / "prometheus" / folder
    scraped = set()
    for path in mounted["/etc/prometheus/targets"].glob("*.yml"):
        for group in yaml.safe_load(path.read_text()):
            for target in group["targets"]:
                host = target.partition(":")[0]
                scraped.add(target)
                assert host == "127.0.0.1" or "watching" in services[host]["networks"]
    wanted = {"timbrel:3000", "127.0.0.1:9090", "alertmanager:9093"}
    assert scraped == (wanted if overrides else wanted | {"triton:8002"})


@needs_monitoring
def test_prometheus_is_set_up_as_on_one_machine() -> None:
    """The rules name the jobs: only addresses and the key are other ones here."""
    ours = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    theirs = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    assert ours["global"] == theirs["global"]
    jobs = {job["job_name"]: job for job in ours["scrape_configs"]}
    assert set(jobs) == {job["job_name"] for job in theirs["scrape_configs"]}
    assert jobs["timbrel"]["authorization"] == {"credentials_file": "/run/secrets/metrics_key"}


@needs_monitoring
def test_grafana_finds_prometheus_and_the_dashboards(gpu: dict[str, Any]) -> None:
    mounted = {each["target"]: Path(each["source"]) for each in gpu["services"]["grafana"]["volumes"]}
    provisioning = mounted["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "timbrel.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "timbrel.yml").read_text())["providers"]
    assert list(mounted[provider["options"]["path"]].glob("*.json")) != []


def test_promtool_takes_the_configuration() -> None:
    checked = subprocess.run(
        [tool("promtool"), "check", "config", "--syntax-only", str(DEPLOY / "prometheus" / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
