"""The files of monitoring/: right by the tools of those who read them, and complete."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.monitoring import (
    MONITORING,
    ROOT,
    alerts,
    dashboards,
    label_values,
    metric_names,
    need,
    panels,
    queries,
    rules,
)
from support.prometheus import hurried

from timbrel import errors
from timbrel.serving import metrics

HEADINGS = ["What it means", "What users see", "Look at first", "Mend it", "It is over when"]


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_its_configuration_and_rules() -> None:
    need("promtool")
    assert "is valid prometheus config file syntax" in _run(
        "promtool", "check", "config", "prometheus/prometheus.yml"
    )
    files = sorted(str(path) for path in (MONITORING / "prometheus" / "rules").glob("*.yml"))
    assert len(files) == 3
    _run("promtool", "check", "rules", *files)


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    need("promtool")
    tests = sorted(str(path) for path in (MONITORING / "prometheus" / "tests").glob("*_test.yml"))
    _run("promtool", "test", "rules", *tests)
    tested = "".join(Path(path).read_text() for path in tests)
    for name in alerts():
        assert re.search(rf'\b{name}"?[}}\n]', tested), f"no promtool test sees {name} fire"


@pytest.mark.parametrize(
    ("severity", "receiver"),
    [("page", "page"), ("ticket", "ticket"), ("none", "watchdog"), ("new", "ticket")],
)
def test_alertmanager_routes_by_severity(severity: str, receiver: str) -> None:
    need("amtool")
    file = "alertmanager/alertmanager.yml"
    _run("amtool", "check-config", file)
    told = _run(
        "amtool", "config", "routes", "test", f"--config.file={file}", "alertname=X", f"severity={severity}"
    )
    assert told.split() == [receiver]


def test_every_alert_tells_what_to_do() -> None:
    linked = set()
    for name, rule in alerts().items():
        assert name.startswith("Timbrel")
        assert rule["labels"]["severity"] in ("page", "ticket", "none")
        assert "for" in rule
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        path = ROOT / rule["annotations"]["runbook_url"]
        linked.add(path)
        text = path.read_text()
        assert name in text.splitlines()[0]
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings[: len(HEADINGS)] == HEADINGS, path.name
    assert linked == set((MONITORING / "runbooks").glob("*.md"))


def test_runbooks_name_what_there_is() -> None:
    known = {name for query in queries() for name in metric_names(query)} | {
        rule.get("record") for rule in rules()
    }
    listed = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    series = set(re.findall(r"timbrel_\w+", listed)) | known
    for path in (MONITORING / "runbooks").glob("*.md"):
        text = path.read_text()
        for link in re.findall(r"\]\(([\w-]+\.md)\)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
        for name in re.findall(r"\b(timbrel:\w+(?::\w+)*|timbrel_[a-z_]+[a-z])\b", text):
            bare = re.sub(r"_(sum|count|bucket)$", "", name)
            assert bare in series or name in series or name == "timbrel_", f"{path.name}: {name}"


def test_the_rules_count_what_is_the_services_fault() -> None:
    def codes(kind: type[errors.TimbrelError]) -> set[str]:
        own = {kind.code} if kind.http_status >= 500 else set()
        return own.union(*(codes(each) for each in kind.__subclasses__()))

    # Two are a client's own: no service sends them.
    assert set(metrics.FAULTS) == codes(errors.TimbrelError) - {"unreachable", "protocol_error"}
    demanded = {
        value for query in queries() for name, label, value in label_values(query) if label == "outcome"
    }
    assert demanded == set(metrics.FAULTS)
    pattern = f'outcome=~"{"|".join(metrics.FAULTS)}"'
    assert all(
        pattern in rule["expr"]
        for rule in rules()
        if rule.get("record", "").startswith("timbrel:requests_failed")
    )


def test_the_dashboards_are_what_their_description_says() -> None:
    done = subprocess.run(
        [sys.executable, str(MONITORING / "dashboards.py"), "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_a_dashboard_is_as_grafanas_schema_says(name: str) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    board = dashboards()[name]
    assert board.pop("id") is None  # Grafana gives one; provisioning wants none
    read = Dashboard.from_json(board)
    # Nothing of it is unknown to the schema, and every value has its type.
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == board
    assert list(_misfits(read, name)) == []


def test_the_schema_check_sees_a_wrong_value_and_a_wrong_field() -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    board = dashboards()["service"]
    board.pop("id")
    board["panels"][1]["gridPos"]["w"] = "wide"
    board["panels"][2]["titel"] = "Answered"
    read = Dashboard.from_json(board)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) != board
    assert list(_misfits(read, "service")) == ["service.panels[1].grid_pos.w: 'wide' is no int"]


def test_dashboards_can_be_told_apart_and_provisioned() -> None:
    boards = dashboards()
    assert set(boards) == {"service", "models", "retrieval", "generator", "capacity"}
    for name, board in boards.items():
        assert board["uid"] == f"timbrel-{name}"
        assert [variable["type"] for variable in board["templating"]["list"]] == ["datasource"]
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
            assert not cells & taken, f"{name}: {panel['title']} lies on another panel"
            assert place["x"] + place["w"] <= 24
            taken |= cells
        for panel in panels(board):
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["description"]
            assert panel["targets"]
    for kind, key in (("datasources", "datasources"), ("dashboards", "providers")):
        for path in (MONITORING / "grafana" / "provisioning" / kind).glob("*.yml"):
            content = yaml.safe_load(path.read_text())
            assert content["apiVersion"] == 1
            assert content[key]


def test_names_are_found_in_promql() -> None:
    query = """
      sum by (model, le) (rate(timbrel_a_bucket{x=~"b|c",y!="d"}[5m])) / on (model) group_left () (timbrel:e:rate5m > 0)
      and absent(up{job="f"}) unless vector(1) or count(g offset 5m) + 1e6
    """
    assert metric_names(query) == {"timbrel_a_bucket", "timbrel:e:rate5m", "up", "g"}
    assert label_values(query) == {
        ("timbrel_a_bucket", "x", "b"),
        ("timbrel_a_bucket", "x", "c"),
        ("up", "job", "f"),
    }


def test_time_is_made_short_everywhere_and_nothing_else() -> None:
    text = "a[6h] > 10 and timbrel:b:ratio_rate5m\n  for: 15m\n  interval: 1m\n  group_wait: 30s\nsummary: for 5 min"
    short = "a[360000ms] > 10 and timbrel:b:ratio_rate5m\n  for: 15000ms\n  interval: 1000ms\n  group_wait: 500ms\n"
    assert hurried(text, 60) == short + "summary: for 5 min"
    for rule in rules():
        for window in re.findall(r"\[(.*?)\]", hurried(rule["expr"], 60)):
            assert re.fullmatch(r"\d+ms", window), rule["expr"]


def _misfits(value: Any, where: str) -> Any:
    """Where an object of the SDK holds something else than its class says."""
    for name, kind in typing.get_type_hints(type(value)).items():
        yield from _misfit(getattr(value, name), kind, f"{where}.{name}")


def _misfit(value: Any, kind: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object) or (kind is not type(None) and value is None):
        return
    if origin in (typing.Union, types.UnionType):
        found = [list(_misfit(value, each, where)) for each in inner if each is not type(None)]
        if all(found):
            yield min(found, key=len)[0]
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{where}: {value!r} is none of {inner}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for number, each in enumerate(value):
            yield from _misfit(each, inner[0], f"{where}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no dict"
    elif inspect.isclass(kind) and issubclass(kind, Enum):
        if value not in {each.value for each in kind}:
            yield f"{where}: {value!r} is no {kind.__name__}"
    elif kind in (str, bool, int, float):
        right = isinstance(value, (int, float) if kind is float else kind)
        if not right or (kind is not bool and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {kind.__name__}"
    elif isinstance(value, kind):
        yield from _misfits(value, where)
    else:
        yield f"{where}: {value!r} is no {kind.__name__}"
