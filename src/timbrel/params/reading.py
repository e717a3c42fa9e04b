"""A params file read and checked whole: every problem is told at once, a line each with its dotted path."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from timbrel.errors import ConfigurationError
from timbrel.params.profile import RULES, Params


def load(path: Path | str) -> Params:
    """Read and check a params file.

    Raises:
        ConfigurationError: the file is missing, is not YAML, or has settings that are wrong; all of them are named.
    """
    path = Path(path)
    values, problems = _read(path)
    return _checked(path, values, problems)


def with_overlays(base: Path, *overlays: Path) -> str:
    """The YAML of ``base`` with the settings of each overlay in the place of its own; checked as a whole.

    An overlay has the form of a params file and only the settings that differ. Raises ConfigurationError as ``load``,
    and for a setting of an overlay that ``base`` has not.
    """
    values, problems = _read(base)
    for path in overlays:
        changes, wrong = _read(path)
        problems += [f"{path}: {each}" for each in [*wrong, *_lay_over(values, changes, "")]]
    _checked(base, values, problems)
    return yaml.safe_dump(values, sort_keys=False)


def _lay_over(values: dict[str, Any], changes: dict[str, Any], prefix: str) -> list[str]:
    """Change ``values`` in place; returns the problems."""
    problems = []
    for name, value in changes.items():
        where = f"{prefix}{name}"
        if name not in values:
            problems.append(f"{where}: no such setting")
        elif isinstance(value, dict) and isinstance(values[name], dict):
            problems += _lay_over(values[name], value, f"{where}.")
        else:
            values[name] = value
    return problems


def _checked(path: Path, values: dict[str, Any], problems: list[str]) -> Params:
    params: Params | None = None
    wrong: set[str] = set()
    try:
        params = Params.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        details = error.errors(include_url=False)
        # Pydantic also calls a list too short when it dropped the items that are wrong.
        inside = {detail["loc"][:-1] for detail in details}
        for detail in details:
            if detail["type"] == "too_short" and detail["loc"] in inside:
                continue
            where = _dotted(detail["loc"])
            wrong.add(where)
            problems.append(f"{where}: {_explain(detail)}")
    for names, holds, message in RULES:
        if any(bad == name or bad.startswith((f"{name}.", f"{name}[")) for bad in wrong for name in names):
            continue
        found = [_look_up(values, name) for name in names]
        if _ABSENT not in found and not holds(*found):
            problems.append(f"{names[0]}: {message}")
    if problems or params is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigurationError(f"{path}: {len(problems)} problem(s), nothing was run\n{lines}")
    return params


_ABSENT = object()


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it (1.2 floats, so that ``1e-3`` is a number), noting settings that are given twice."""

    duplicates: list[str]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        if key.value in seen:
            loader.duplicates.append(f"line {key.start_mark.line + 1}: {key.value} is given twice")
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; run from the repository's root or name it"
        ) from error
    loader = _Loader(text)
    loader.duplicates = []
    try:
        values = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}: line {line} is not YAML: {error.problem}") from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: must be a mapping of sections, beginning with `seed:`")
    return values, loader.duplicates


def _look_up(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        if not isinstance(values, dict) or name not in values:
            return _ABSENT
        values = values[name]
    return values


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _explain(detail: ErrorDetails) -> str:
    """Pydantic's message, shortened, with the value that was given."""
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "extra_forbidden":
        section: Any = Params
        for part in detail["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        near = difflib.get_close_matches(str(detail["loc"][-1]), section.model_fields, 1)
        return "no such setting" + (f"; {near[0]}?" if near else "")
    if detail["type"] in ("too_short", "too_long"):
        bound = detail["ctx"].get("min_length") or detail["ctx"].get("max_length")
        return f"has {detail['ctx']['actual_length']} values, needs {bound}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"must be {message}, not {json.dumps(detail['input'])}"
