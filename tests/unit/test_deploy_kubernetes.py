"""deploy/kubernetes: built by kubectl, held against Kubernetes' own schemas, and by value what it promises."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.kustomize import KUBERNETES, built
from support.tools import tool

from timbrel import settings
from timbrel.serving import metrics
from timbrel.serving.triton_devices import TIMING_CACHE
from timbrel.settings import ROOT, EngineKind, Settings, TritonDevice

OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.32", "1.37")
POD = {"app.kubernetes.io/name": "timbrel", "app.kubernetes.io/component": "service"}
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def objects(overlay: str) -> Objects:
    return built(KUBERNETES / "overlays" / overlay)


def _pod(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", "timbrel"]["spec"]["template"]["spec"]
    return spec


def _containers(objects: Objects) -> dict[str, dict[str, Any]]:
    pod = _pod(objects)
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


def _settings(objects: Objects) -> Settings:
    environment = objects["ConfigMap", "timbrel-settings"]["data"]
    assert set(environment) <= {settings.variable(name) for name in Settings.model_fields}
    return settings.load(environment)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_its_schema_says(objects: Objects, version: str) -> None:
    for each in objects.values():
        assert kubernetes_validate.validate(each, version, strict=True) == version


def test_a_schema_that_is_broken_is_seen(objects: Objects) -> None:
    wrong = {**objects["PodDisruptionBudget", "timbrel"], "spec": {"maxUnavailable": True}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_all_parts_are_there_and_in_one_namespace(objects: Objects) -> None:
    assert set(objects) == {
        ("Namespace", "timbrel"),
        ("ServiceAccount", "timbrel"),
        ("ConfigMap", "timbrel-bundle"),
        ("ConfigMap", "timbrel-scripts"),
        ("ConfigMap", "timbrel-settings"),
        ("Service", "timbrel"),
        ("Service", "timbrel-grpc"),
        ("PersistentVolumeClaim", "timbrel-bundles"),
        ("Deployment", "timbrel"),
        ("PodDisruptionBudget", "timbrel"),
        ("HorizontalPodAutoscaler", "timbrel"),
        ("NetworkPolicy", "default-deny"),
        ("NetworkPolicy", "callers"),
        ("NetworkPolicy", "scraping"),
        ("NetworkPolicy", "bundle-download"),
    }
    for (kind, _), each in objects.items():
        assert kind == "Namespace" or each["metadata"]["namespace"] == "timbrel"


def test_every_container_may_as_little_as_it_can(objects: Objects) -> None:
    pod = _pod(objects)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1034,
        "runAsGroup": 1034,
        "fsGroup": 1034,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert objects["ServiceAccount", "timbrel"]["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in _containers(objects).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound])
        assert re.fullmatch(
            r"timbrel-service:1\.0|nvcr\.io/nvidia/tritonserver:25\.10-py3", container["image"]
        )
    assert (
        objects["Namespace", "timbrel"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )


def test_volumes_are_mounted_and_bounded(objects: Objects) -> None:
    volumes = {each["name"]: each for each in _pod(objects)["volumes"]}
    mounted = [mount for each in _containers(objects).values() for mount in each["volumeMounts"]]
    assert {mount["name"] for mount in mounted} == set(volumes)
    for volume in volumes.values():
        assert "hostPath" not in volume
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
    service = {mount["mountPath"]: mount for mount in _containers(objects)["timbrel"]["volumeMounts"]}
    chosen = _settings(objects)
    # What it writes can be written, what it only reads cannot.
    assert "readOnly" not in service[str(chosen.state)]
    assert service[str(chosen.bundle.parent)]["readOnly"] is True
    assert service["/bundles"]["readOnly"] is True
    assert service[str(chosen.keys_file.parent)]["readOnly"] is True
    claim = volumes["bundles"]["persistentVolumeClaim"]["claimName"]
    assert objects["PersistentVolumeClaim", claim]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_service_takes_its_settings(objects: Objects, overlay: str) -> None:
    chosen = _settings(objects)
    assert chosen.needs_key
    assert (chosen.host, chosen.grpc_host) == ("0.0.0.0", "0.0.0.0")
    ports = {port["name"]: port["containerPort"] for port in _containers(objects)["timbrel"]["ports"]}
    assert ports == {"http": chosen.http_port, "grpc": chosen.grpc_port}
    if overlay == "cpu":
        assert (chosen.engine, chosen.triton_url, chosen.triton_repository) == (
            EngineKind.INPROCESS,
            "",
            None,
        )
    else:
        assert (chosen.engine, chosen.triton_device) == (EngineKind.TRITON, TritonDevice.GPU)
    # Kubernetes would add TIMBREL_PORT=tcp://… for the Service of that name.
    assert _pod(objects)["enableServiceLinks"] is False


def test_probes_ask_what_needs_no_key(objects: Objects) -> None:
    service = _containers(objects)["timbrel"]
    assert service["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert service["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    # A Triton that is away makes it unready, not dead.
    assert service["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    # The launcher gives its workers 40 s to finish, after those 10.
    assert service["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]
    assert _pod(objects)["terminationGracePeriodSeconds"] >= 10 + 40 + 20


def test_triton_is_in_the_pod_before_the_service_and_for_it_alone() -> None:
    objects = built(KUBERNETES / "overlays" / "gpu")
    assert [each["name"] for each in _pod(objects)["initContainers"]] == ["bundle", "triton"]
    triton, service = (_containers(objects)[name] for name in ("triton", "timbrel"))
    assert triton["restartPolicy"] == "Always"
    assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in service["resources"]["limits"]
    options = dict(option.partition("=")[::2] for option in triton["args"])
    chosen = _settings(objects)
    assert chosen.triton_url == f"{options['--grpc-address']}:{options['--grpc-port']}"
    assert (options["--http-address"], options["--grpc-address"]) == ("127.0.0.1", "127.0.0.1")
    assert (options["--model-control-mode"], options["--load-model"]) == ("explicit", "*")
    mounts = {each["mountPath"]: each for each in triton["volumeMounts"]}
    assert mounts[options["--model-repository"]]["readOnly"] is True
    assert options["--model-repository"] == str(chosen.triton_repository)
    assert TIMING_CACHE in mounts
    models = [each for each in service["volumeMounts"] if each["mountPath"] == str(chosen.triton_repository)]
    assert [each["name"] for each in models] == [mounts[options["--model-repository"]]["name"]]


def test_selectors_find_the_pods(objects: Objects) -> None:
    deployment = objects["Deployment", "timbrel"]["spec"]
    assert deployment["selector"]["matchLabels"] == POD
    assert POD.items() <= deployment["template"]["metadata"]["labels"].items()
    assert objects["PodDisruptionBudget", "timbrel"]["spec"]["selector"]["matchLabels"] == POD
    for spread in _pod(objects)["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == POD
    named = {port["name"] for port in _containers(objects)["timbrel"]["ports"]}
    for name in ("timbrel", "timbrel-grpc"):
        service = objects["Service", name]["spec"]
        assert service["selector"] == POD
        assert {port["targetPort"] for port in service["ports"]} <= named
        assert service.get("type", "ClusterIP") == "ClusterIP"


def test_one_pod_at_a_time_goes_and_two_are_there(objects: Objects, overlay: str) -> None:
    assert objects["PodDisruptionBudget", "timbrel"]["spec"]["maxUnavailable"] == 1
    scaling = objects["HorizontalPodAutoscaler", "timbrel"]["spec"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == ((2, 8) if overlay == "cpu" else (2, 4))
    assert scaling["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "timbrel"}
    deployment = objects["Deployment", "timbrel"]["spec"]
    assert "replicas" not in deployment
    rolling = deployment["strategy"]["rollingUpdate"]
    assert rolling == (
        {"maxUnavailable": 0, "maxSurge": 1} if overlay == "cpu" else {"maxUnavailable": 1, "maxSurge": 0}
    )


def test_only_named_flows_are_open(objects: Objects, overlay: str) -> None:
    policies = {name: each["spec"] for (kind, name), each in objects.items() if kind == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = set()
    for name, policy in policies.items():
        assert name == "default-deny" or policy["podSelector"] == {"matchLabels": POD}
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy.get(direction, ()):
                assert rule[side], name
                opened |= {(name, direction, port["port"]) for port in rule["ports"]}
    wanted = {
        ("callers", "ingress", "http"),
        ("callers", "ingress", "grpc"),
        ("scraping", "ingress", "http"),
        ("bundle-download", "egress", 53),
        ("bundle-download", "egress", 443),
    }
    assert opened == (wanted if overlay == "cpu" else wanted | {("scraping", "ingress", "triton-metrics")})


def test_another_bundle_rolls_the_pods_over(tmp_path: Path) -> None:
    """Its id is in a map whose name changes with it, and so does the pod's template."""

    def with_bundle(number: str) -> str:
        folder = tmp_path / number
        folder.mkdir()
        base = (
            Path("..", *[".."] * (len(folder.resolve().parts) - 2)) / str(KUBERNETES / "overlays" / "cpu")[1:]
        )
        kustomization = {
            "resources": [str(base)],
            "namespace": "timbrel",
            "configMapGenerator": [
                {"name": "timbrel-bundle", "behavior": "merge", "literals": [f"BUNDLE_ID={number}"]}
            ],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        objects = built(folder)
        (source,) = _containers(objects)["bundle"]["envFrom"]
        assert objects["ConfigMap", "timbrel-bundle"]["data"]["BUNDLE_ID"] == number
        name: str = source["configMapRef"]["name"]
        assert name == objects["ConfigMap", "timbrel-bundle"]["metadata"]["name"]
        return name

    assert with_bundle("1" * 64) != with_bundle("2" * 64)


def test_the_monitoring_component_scrapes_both_ports_with_the_key(tmp_path: Path) -> None:
    for folder in ("base", "overlays", "components"):
        target = tmp_path / folder
        target.parent.mkdir(exist_ok=True)
        _copied(KUBERNETES / folder, target)
    path = tmp_path / "overlays" / "gpu" / "kustomization.yaml"
    path.write_text(path.read_text() + "components: [../../components/monitoring]\n")
    objects = built(path.parent)
    monitor = objects["PodMonitor", "timbrel"]
    assert monitor["metadata"]["namespace"] == "timbrel"
    assert monitor["spec"]["selector"]["matchLabels"] == POD
    ports = {
        port["name"] for container in _containers(objects).values() for port in container.get("ports", ())
    }
    endpoints = {each["port"]: each for each in monitor["spec"]["podMetricsEndpoints"]}
    assert set(endpoints) == {"http", "triton-metrics"}
    assert set(endpoints) <= ports
    assert endpoints["http"]["authorization"]["credentials"] == {"name": "timbrel-metrics-key", "key": "key"}
    assert {name: each["relabelings"] for name, each in endpoints.items()} == {
        "http": [{"targetLabel": "job", "replacement": "timbrel"}],
        "triton-metrics": [{"targetLabel": "job", "replacement": "triton"}],
    }


def _copied(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def _adapter_rules() -> Iterator[dict[str, Any]]:
    values = yaml.safe_load(
        (KUBERNETES / "components" / "monitoring" / "prometheus-adapter.yaml").read_text()
    )
    assert values["rules"]["default"] is False
    yield from values["rules"]["custom"]


def test_the_autoscaler_asks_for_what_the_adapter_tells(objects: Objects) -> None:
    told = {rule["name"]["as"] for rule in _adapter_rules()}
    asked = {
        each["pods"]["metric"]["name"]: each["pods"]["target"]["averageValue"]
        for each in objects["HorizontalPodAutoscaler", "timbrel"]["spec"]["metrics"]
        if each["type"] == "Pods"
    }
    assert set(asked) == told
    assert asked == {"timbrel_workshop_waiting": "2", "timbrel_workshop_taken_ratio": "250m"}
    # Of the service's own metrics, and labelled by pod, or the adapter would not find a pod for them.
    series = {
        name for rule in _adapter_rules() for name in re.findall(r"timbrel_workshop_\w+(?={)", str(rule))
    }
    assert series == {"timbrel_workshop_waiting", "timbrel_workshop_busy", "timbrel_workshop_places"}
    known = Path(str(metrics.__file__)).read_text()
    assert all(f'"{name}"' in known for name in series)


def test_the_adapters_questions_give_the_load_of_each_pod(tmp_path: Path) -> None:
    """Asked of a real Prometheus' engine, as the adapter asks them."""
    rules = []
    for rule in _adapter_rules():
        question = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="timbrel",pod=~"a|b"')
        rules.append(
            {"record": f"asked:{rule['name']['as']}", "expr": question.replace("<<.GroupBy>>", "pod")}
        )
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": rules}]}))

    def series(metric: str, pod: str, workshop: str, values: str) -> dict[str, str]:
        return {
            "series": f'{metric}{{namespace="timbrel",pod="{pod}",workshop="{workshop}"}}',
            "values": values,
        }

    given = [
        series("timbrel_workshop_waiting", "a", "questions", "0 0 0 6x6"),
        series("timbrel_workshop_waiting", "b", "questions", "0x8"),
        series("timbrel_workshop_waiting", "a", "instruments", "9x8"),
        series("timbrel_workshop_busy", "a", "questions", "2x8"),
        series("timbrel_workshop_busy", "b", "questions", "1x8"),
        series("timbrel_workshop_places", "a", "questions", "32x8"),
        series("timbrel_workshop_places", "b", "questions", "32x8"),
    ]

    def sample(metric: str, pod: str, value: float) -> dict[str, Any]:
        return {"labels": f'asked:{metric}{{pod="{pod}"}}', "value": value}

    waiting, taken = "timbrel_workshop_waiting", "timbrel_workshop_taken_ratio"
    wanted = {
        f"asked:{waiting}": [sample(waiting, "a", 6), sample(waiting, "b", 0)],
        f"asked:{taken}": [sample(taken, "a", (2 + 6) / 32), sample(taken, "b", 1 / 32)],
    }
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": given,
                "promql_expr_test": [
                    {"expr": name, "eval_time": "4m", "exp_samples": samples}
                    for name, samples in wanted.items()
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    tested = subprocess.run(
        [tool("promtool"), "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_images_are_those_of_compose() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    triton = _containers(built(KUBERNETES / "overlays" / "gpu"))["triton"]
    assert triton["image"] == compose["services"]["triton"]["image"]
