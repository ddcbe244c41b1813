"""Planted faults: each rule has at least one that it must kill."""

from __future__ import annotations

import functools
import importlib

from ris_verified.audit.faults.fault import AnyFault
from ris_verified.errors import AuditError

MODULES = (
    "sources", "scenes", "draws", "batches", "covariances", "learning", "networks", "groups", "terms", "steps",
    "passes", "knobs", "estimates", "outcomes", "tuning", "stored", "studies", "judging", "feeding", "scoring",
    "choosing", "localizing", "scripts", "sizes", "runs", "corners", "searches", "guessing", "prints", "contracts",
    "launches", "beginnings",
)  # fmt: skip


@functools.cache
def faults() -> tuple[AnyFault, ...]:
    """Return every fault, in order of the predicted rules.

    Raises:
        AuditError: two faults share a name.
    """
    found: list[AnyFault] = []
    for name in MODULES:
        found += importlib.import_module(f"{__name__}.{name}").FAULTS
    names = [fault.name for fault in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AuditError(f"two faults are called {twice[0]}", where="faults", expected="a name of its own")
    return tuple(sorted(found, key=lambda fault: (fault.rule, fault.name)))
