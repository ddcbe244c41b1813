"""Range checks used by the configuration tree; each failure names field, value and range."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Sequence
from typing import Any

from ris_verified.errors import ConfigError


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(
            f"{value!r} is not allowed",
            where=name,
            expected=expected,
            remedy="change the value in the file or the override",
        )


@functools.cache
def _resolved(kind: Any) -> dict[str, Any]:
    # Resolving texts to types compiles each of them: 5 ms for a whole configuration.
    return typing.get_type_hints(kind)


def _hints(owner: Any) -> dict[str, Any]:
    kind: Any = type(owner)
    return _resolved(kind)


def _value(owner: Any, section: str, name: str) -> tuple[str, Any]:
    label = f"{section}.{name}" if section else name
    value = vars(owner)[name]
    kind = _hints(owner)[name]
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or (kind is float and isinstance(value, float) and math.isfinite(value))
    require(number, label, value, f"a finite {kind.__name__}")
    return label, value


def at_least(owner: Any, section: str, low: float, *names: str) -> None:
    """Check that each named field is a finite number of its type, at least `low`."""
    for name in names:
        label, value = _value(owner, section, name)
        require(value >= low, label, value, f"at least {low}")


def between(owner: Any, section: str, name: str, low: float, high: float) -> None:
    """Check low ≤ field ≤ high."""
    label, value = _value(owner, section, name)
    require(low <= value <= high, label, value, f"between {low} and {high}")


def ordered(owner: Any, section: str, low: str, high: str) -> None:
    """Check that one field does not exceed another."""
    (_, small), (label, large) = _value(owner, section, low), _value(owner, section, high)
    require(small <= large, label, large, f"at least {section}.{low} = {small}")


def even(owner: Any, section: str, *names: str) -> None:
    """Check that each named field is an even number."""
    for name in names:
        label, value = _value(owner, section, name)
        require(value % 2 == 0, label, value, "an even number")


def one_of(owner: Any, section: str, name: str, allowed: Sequence[str]) -> None:
    """Check that a field is one of the allowed words."""
    value = vars(owner)[name]
    require(value in allowed, f"{section}.{name}", value, " or ".join(map(repr, allowed)))


def check_kinds(owner: Any, section: str) -> None:
    """Check that every boolean is a bool and every number a finite number of its type."""
    hints = _hints(owner)
    for item in dataclasses.fields(owner):
        kind, value = hints[item.name], vars(owner)[item.name]
        label = f"{section}.{item.name}" if section else item.name
        if kind is bool:
            require(isinstance(value, bool), label, value, "true or false")
        elif kind in (int, float):
            _value(owner, section, item.name)
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            require(isinstance(value, kind), label, value, f"a {kind.__name__}")
