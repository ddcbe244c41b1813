"""The rules, one module a section of the checklist; importing them is the registration."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from ris_verified.audit.rule import Rule
from ris_verified.errors import AuditError

MODULES = (
    "names", "values", "groups", "gradients", "losses", "shapes_rules", "agreement", "hpo", "data", "inputs", "static",
    "forward", "first_epoch", "risks", "launch", "outcome", "saved", "positions", "trials", "storage", "memory",
    "scores",
)  # fmt: skip


@functools.cache
def rules() -> Mapping[str, Rule]:
    """Return every rule by id, in order; needs no torch.

    Raises:
        AuditError: two rules share an id.
    """
    found: dict[str, Rule] = {}
    for name in MODULES:
        module = importlib.import_module(f"{__name__}.{name}")
        for item in vars(module).values():
            if not isinstance(item, Rule) or found.get(item.id) is item:
                continue
            if item.id in found:
                raise AuditError(f"two rules are called {item.id}", where=name, expected="an id of its own")
            found[item.id] = item
    return MappingProxyType(dict(sorted(found.items())))
