"""The settings of a build, from the models that check params files; those of the service, from theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from wording import kind, shown, table

from timbrel import settings
from timbrel.params import Params

ROOT = Path(__file__).parents[2]


def params() -> str:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    parts = [
        "# Params",
        "The settings of the build, `params.yaml`, and their values there. `timbrel pipeline check` checks a file; "
        "every setting has to be in it. Other profiles lie in `params/`.",
        table(
            ("setting", "type", "default profile", "meaning"), settings_of(Params, values, only_plain=True)
        ),
    ]
    for name, field in Params.model_fields.items():
        section = model_in(field)
        if section is not None:
            about = " ".join((section.__doc__ or "").split())
            rows = settings_of(section, values[name], prefix=f"{name}.")
            parts += [f"## {name}", about, table(("setting", "type", "default profile", "meaning"), rows)]
    return "\n\n".join(parts)


def settings_of(
    section: type[BaseModel], values: Mapping[str, Any], *, prefix: str = "", only_plain: bool = False
) -> Iterator[tuple[str, str, str, str]]:
    schema = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        inner = model_in(field)
        if inner is not None:
            if not only_plain:
                yield from settings_of(inner, values[name], prefix=f"{prefix}{name}.")
            continue
        value = values[name]
        many = isinstance(value, list) and value and isinstance(value[0], dict)
        text = f"{len(value)} of them" if many else f"`{shown(value)}`"
        yield (
            f"`{prefix}{name}`",
            "list of figures" if many else kind(schema[name]),
            text,
            field.description or "",
        )


def model_in(field: FieldInfo) -> type[BaseModel] | None:
    kind_ = field.annotation
    return kind_ if isinstance(kind_, type) and issubclass(kind_, BaseModel) else None


def variables() -> str:
    schema = settings.Settings.model_json_schema()
    rows = []
    for name, field in settings.Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = (
                str(default.relative_to(settings.ROOT)) if default != settings.ROOT else "(the repository)"
            )
        about = schema["properties"][name]
        if "$ref" in about:
            about = schema["$defs"][about["$ref"].rpartition("/")[2]]
        text = "" if default in (None, "") else f"`{shown(default)}`"
        rows.append(
            (
                f"`{settings.variable(name)}`",
                kind(about).replace(" or null", ""),
                text,
                field.description or "",
            )
        )
    return "\n\n".join(
        [
            "# Settings",
            "What the environment may set when Timbrel serves. Relative default paths start at the repository, or "
            "at the root of a built Bento. A wrong one stops the start, with a line for each.",
            table(("variable", "type", "default", "meaning"), rows),
        ]
    )
