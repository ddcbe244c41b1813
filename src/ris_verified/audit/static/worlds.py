"""The ways to get to a point of a scope: what each binds, and what each knows."""

from __future__ import annotations

from ris_verified.audit.static.facts import Facts

World = tuple[int, Facts]
State = tuple[World, ...]  # the ways to get here; none: this point is not reached
Closure = frozenset[tuple[str, bool]]  # a name that a function reads, and whether it does in any case
Finding = tuple[int, str, str]
WORLDS = 12  # ways to get to one point that are told apart


def join(*states: State) -> State:
    """Return the worlds of several states; equal facts keep what all of them bind."""
    worlds: dict[Facts, int] = {}
    for state in states:
        for mask, facts in state:
            worlds[facts] = worlds[facts] & mask if facts in worlds else mask
    if len(worlds) > WORLDS:
        by_mask: dict[int, Facts] = {}
        for facts, mask in worlds.items():
            by_mask[mask] = by_mask[mask] & facts if mask in by_mask else facts
        worlds = {}
        for mask, facts in by_mask.items():
            worlds[facts] = worlds[facts] & mask if facts in worlds else mask
    if len(worlds) > WORLDS:
        mask, facts = -1, frozenset.intersection(*worlds)
        for other in worlds.values():
            mask &= other
        return ((mask, facts),)
    return tuple((mask, facts) for facts, mask in worlds.items())
