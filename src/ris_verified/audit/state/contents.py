"""How the contents of each kind of container are read, and written as a whole."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterable
from typing import Any

from ris_verified.audit.state.held import Pairs, Read, Write

Access = tuple[Read, Write]


def of_mapping(held: dict[Any, Any]) -> Access:
    """Return reader and writer of a dictionary, such as an object's attributes."""

    def write(pairs: Pairs) -> None:
        held.clear()
        held.update(pairs)

    return lambda: list(held.items()), write


def of_sequence(held: list[Any] | deque[Any]) -> Access:
    """Return reader and writer of a list or deque; the keys are positions."""

    def write(pairs: Pairs) -> None:
        held.clear()
        held.extend(value for _, value in pairs)

    return lambda: list(enumerate(held)), write


def of_set(held: set[Any]) -> Access:
    """Return reader and writer of a set; an untouched set keeps its order."""

    def write(pairs: Pairs) -> None:
        held.clear()
        held.update(value for _, value in pairs)

    return lambda: sorted(((None, value) for value in held), key=lambda pair: (hash(pair[1]), id(pair[1]))), write


def of_cell(cell: types.CellType) -> Access:
    """Return reader and writer of a closure's variable, which may be unbound."""

    def read() -> Pairs:
        try:
            return [("", cell.cell_contents)]
        except ValueError:
            return []

    def write(pairs: Pairs) -> None:
        if pairs:
            cell.cell_contents = pairs[0][1]
        else:
            del cell.cell_contents

    return read, write


def of_names(space: dict[str, Any], names: Iterable[str]) -> Access:
    """Return reader and writer of some names of a module."""
    chosen = sorted(names)

    def write(pairs: Pairs) -> None:
        for name in set(chosen) - {key for key, _ in pairs}:
            space.pop(name, None)
        space.update(pairs)

    return lambda: [(name, space[name]) for name in chosen if name in space], write


def of_slots(owner: object) -> Access:
    """Return reader and writer of an object's `__slots__`."""
    slots = {
        name: item
        for kind in type(owner).__mro__
        for name, item in vars(kind).items()
        if isinstance(item, types.MemberDescriptorType)
    }

    def read() -> Pairs:
        found = []
        for name, slot in slots.items():
            try:
                found.append((name, slot.__get__(owner)))
            except AttributeError:
                continue  # declared and never set
        return found

    def write(pairs: Pairs) -> None:
        held = dict(pairs)
        for name, _ in read():
            if name not in held:
                slots[name].__delete__(owner)
        for name, value in pairs:
            slots[name].__set__(owner, value)

    return read, write
