"""What expressions are worth where the audit says NO-GO and nothing else is told."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ris_verified.audit.static.syntax import called_name

NO_GO = "NO-GO"
# Methods of a text that may stand between the verdict and its comparison.
FOLDED: dict[str, Callable[..., Any]] = {
    "lower": str.lower, "upper": str.upper, "casefold": str.casefold, "strip": str.strip, "replace": str.replace,
    "startswith": str.startswith, "endswith": str.endswith,
}  # fmt: skip
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b, ast.Is: lambda a, b: a == b,
    ast.IsNot: lambda a, b: a != b, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


class Unknown:
    """What only a run could tell."""


class Report:
    """The audit's report, or what keeps its verdict."""


@dataclass(frozen=True)
class Value:
    """A value, and whether the verdict had a say in it."""

    value: Any = Unknown
    told: bool = False


UNKNOWN, REPORT = Value(), Value(Report, True)


def part_of(base: Value, name: object) -> Value:
    """Return a field or an entry of a value."""
    if isinstance(base.value, str) and base.told and name == "value":
        # Of an enumeration.
        return base
    if base.value is Report and name == "verdict":
        return Value(NO_GO, True)
    if isinstance(base.value, dict) and name in base.value:
        found: Value = base.value[name]
        return found
    return Value(Unknown, base.told)


def verdict_in(value: Value) -> bool:
    """Return whether a value holds the verdict."""
    if isinstance(value.value, dict):
        return any(verdict_in(entry) for entry in value.value.values())
    if isinstance(value.value, tuple):
        return any(verdict_in(Value(part)) for part in value.value)
    return value.value in (Report, NO_GO)


def compared(op: ast.cmpop, left: Value, right: Value, usual: bool) -> Value:
    """Return the outcome of a comparison, of what is not known as nothing where the usual is asked for."""
    told, sides = left.told or right.told, []
    for side in (left, right):
        value = NO_GO if side.value is Report else side.value
        sides.append(None if value is Unknown and usual else value)
    if Unknown in sides or type(op) not in COMPARED:
        return Value(Unknown, told)
    try:
        return Value(COMPARED[type(op)](*sides), told)
    except TypeError:
        return Value(Unknown, told)


def folded(call: ast.Call, base: Value, given: list[Value]) -> Value | None:
    """Return what a method of a known text gives, or a built-in of a known value; None for other calls."""
    name, values = called_name(call.func), [value.value for value in given]
    told = base.told or any(value.told for value in given)
    if name == "get" and values and (base.value is Report or isinstance(base.value, dict)):
        return part_of(base, values[0])
    if Unknown in values:
        return None
    if isinstance(base.value, str) and name in FOLDED and all(isinstance(value, str | tuple) for value in values):
        return Value(FOLDED[name](base.value, *values), told)
    if name in ("str", "bool") and isinstance(call.func, ast.Name) and len(values) == 1:
        value = NO_GO if values[0] is Report else values[0]
        return Value(str(value) if name == "str" else bool(value), told)
    return None


def merged(*worlds: dict[str, Value]) -> dict[str, Value]:
    """Return variables after branches of which any may have run; what the verdict has a say in comes first."""
    made: dict[str, Value] = {}
    for world in worlds:
        for name, value in world.items():
            before = made.get(name, value)
            if before == value or (before.told and not value.told):
                made[name] = before
            elif value.told and not before.told:
                made[name] = value
            else:
                made[name] = Value(Unknown, value.told and before.told)
    return made
