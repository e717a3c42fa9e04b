"""Tables, values, and JSON schemas in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Longer lists of values are the library's own, its banks for example.
FEW = 12


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; line breaks and bars within a cell are kept from ending it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


def shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(each) for each in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema's type in a few words, with its limits."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        values = schema["enum"]
        return (
            ", ".join(f"`{each}`" for each in values) if len(values) <= FEW else "a name that the library has"
        )
    if "const" in schema:
        return f"`{schema['const']}`"
    if "prefixItems" in schema:
        return f"[{', '.join(kind(each) for each in schema['prefixItems'])}]"
    if schema.get("type") == "array":
        count = bounds(schema, "minItems", "maxItems")
        return f"list of {kind(schema['items'])}" + (f", {count} of them" if count else "")
    if "contentMediaType" in schema:
        return "file"
    limits = bounds(schema, "minimum", "maximum")
    return schema.get("type", "any") + (f", {limits}" if limits else "")


def bounds(schema: Mapping[str, Any], low: str, high: str) -> str:
    """ "1 to 100", "at least 1", "above 0, less than 1", or nothing."""
    least, most = schema.get(low), schema.get(high)
    if least is not None and most is not None:
        return number(least) if least == most else f"{number(least)} to {number(most)}"
    limits = {
        "at least": least,
        "above": schema.get("exclusiveMinimum"),
        "at most": most,
        "less than": schema.get("exclusiveMaximum"),
    }
    return ", ".join(f"{word} {number(limit)}" for word, limit in limits.items() if limit is not None)


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 1e4 else f"{value:g}"


def meaning(schema: Mapping[str, Any]) -> str:
    text = schema.get("description", "")
    default = schema.get("default")
    return f"{text} Default: `{shown(default)}`." if default not in (None, []) else text
