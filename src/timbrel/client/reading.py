"""Results from what a service tells, field by field: JSON, gRPC and the result classes use the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from timbrel.engine.results import Query
from timbrel.pitch.gate import Decision, GateDecision

Kind = TypeVar("Kind")
Told = Callable[[str], Any]
"""What was told under a name; raises KeyError or AttributeError where there is no such name."""

# By a field's annotation: what makes its value.
_MAKERS: dict[Any, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "float | None": lambda told: None if told is None else float(told),
    "tuple[str, ...]": lambda told: tuple(map(str, told)),
    "tuple[float, ...]": lambda told: tuple(map(float, told)),
    "Decision": Decision,
}


def read(kind: type[Kind], told: Told, **made: Any) -> Kind:
    """A result class; fields that are results themselves are ``made`` already.

    Raises KeyError, AttributeError, TypeError or ValueError for what is no such result.
    """
    values = {
        field.name: _MAKERS[field.type](told(field.name))
        for field in fields(kind)  # type: ignore[arg-type]
        if field.name not in made
    }
    return kind(**values, **made)


def query(told: Told, gate: Told) -> Query:
    """What was heard; ``gate`` tells the decision on it."""
    return read(Query, told, gate=read(GateDecision, gate))
