"""Finds what hangs on a pipeline: modules, tensors, optimisers, generators and the containers between."""

from __future__ import annotations

import functools
import gc
import random
import sys
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

from ris_verified.audit.state.contents import Access, of_cell, of_mapping, of_names, of_sequence, of_set, of_slots
from ris_verified.audit.state.held import ATOMS, HeldArray, HeldStorage, HeldTensor, Holder, Part, Value, storage_key

OBJECTS, BYTES = 200_000, 8 << 30
# Objects of these packages hold locks, files and whole interpreters, and nothing of a pipeline's own.
FOREIGN = frozenset(sys.stdlib_module_names) - {"__main__"} | {
    "_pytest", "beartype", "jaxtyping", "jinja2", "matplotlib", "numpy", "optuna", "pluggy", "pytest", "rich", "scipy",
    "sqlalchemy",
}  # fmt: skip
# Functions and classes of these keep no state in module globals.
STATELESS = FOREIGN | {"ris_verified", "torch"}
Child = tuple[str, Any]


class Reach:
    """A walk over closures, partials, bound objects, attributes, slots, containers and the globals that are read.

    No property is run: instances are read through `vars` and their slots.

    Args:
        root: where to begin.
        name: its name in the paths of what is found.
    """

    def __init__(self, root: object, name: str) -> None:
        self.parts: list[Part] = []
        self.left_out = 0
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}
        self._storages: set[int] = set()
        self._bytes = 0
        queue: deque[Child] = deque([(name, root)])
        while queue:
            queue.extend(self._visit(*queue.popleft()))

    def number(self, value: object) -> int | None:
        """Return the place of an object in the walk, None where it was not met."""
        # Everything that was met is kept alive here, so no new object can have its address.
        return self._numbers.get(id(value))

    def _visit(self, name: str, value: Any) -> list[Child]:
        if isinstance(value, ATOMS) or id(value) in self._numbers:
            return []
        if len(self._objects) >= OBJECTS:
            self.left_out += 1
            return []
        self._numbers[id(value)] = len(self._objects)
        self._objects.append(value)
        return list(self._leaf(name, value) or self._children(name, value))

    def _leaf(self, name: str, value: Any) -> list[Child]:
        import numpy as np
        import torch

        if isinstance(value, torch.Tensor):
            return self._tensor(name, value)
        if isinstance(value, np.ndarray) and value.dtype != object and not isinstance(value, np.memmap):
            self._add_sized(value.nbytes, lambda: HeldArray(name, value))
        elif isinstance(value, torch.Generator):
            self.parts.append(Value(name, value.get_state, value.set_state))
        elif isinstance(value, random.Random):
            self.parts.append(Value(name, value.getstate, value.setstate))
        elif isinstance(value, np.random.RandomState):
            self.parts.append(Value(name, value.get_state, value.set_state))
        elif isinstance(value, np.random.Generator):
            return [(name, value.bit_generator)]
        elif isinstance(value, np.random.BitGenerator):
            self.parts.append(Value(name, lambda: value.state, lambda state: setattr(value, "state", state)))
        return []

    def _tensor(self, name: str, tensor: Any) -> list[Child]:
        held = HeldTensor(name, tensor)
        self.parts.append(held)
        address, size = storage_key(tensor)
        if address and address not in self._storages:
            self._storages.add(address)
            self._add_sized(size, lambda: HeldStorage(name, tensor.untyped_storage()))
        return [(f"{name}.grad", held.grad)]

    def _add_sized(self, size: int, make: Any) -> None:
        if self._bytes + size > BYTES:
            self.left_out += 1
            return
        self._bytes += size
        self.parts.append(make())

    def _children(self, name: str, value: Any) -> Iterator[Child]:
        if isinstance(value, dict):
            yield from self._hold(name, of_mapping(value))
        elif isinstance(value, list | deque):
            yield from self._hold(name, of_sequence(value))
        elif isinstance(value, set):
            yield from self._hold(name, of_set(value))
        elif isinstance(value, tuple | frozenset):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value))
        elif isinstance(value, types.FunctionType):
            yield from self._function(name, value)
        elif isinstance(value, types.MethodType):
            yield from ((f"{name}.__self__", value.__self__), (name, value.__func__))
        elif isinstance(value, functools.partial):
            yield from ((name, value.func), (name, value.args), (name, value.keywords))
        elif isinstance(value, staticmethod | classmethod):
            yield name, value.__func__
        elif isinstance(value, functools._lru_cache_wrapper):
            yield from _cached(name, value)
        elif isinstance(value, type):
            if _package(value.__module__) not in STATELESS:
                yield from ((f"{name}.{key}", item) for key, item in vars(value).items())
        elif isinstance(value, types.SimpleNamespace) or _package(type(value).__module__) not in FOREIGN:
            yield from self._instance(name, value)

    def _hold(self, name: str, access: Access) -> Iterator[Child]:
        holder = Holder(name, *access)
        self.parts.append(holder)
        for key, value in holder.pairs:
            # Optimisers keep their moments in a dictionary whose keys are parameters.
            label = key if isinstance(key, str | int) else "…"
            yield f"{name}.{label}" if label != "" else name, value
            yield name, key

    def _function(self, name: str, function: types.FunctionType) -> Iterator[Child]:
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            yield from self._hold(f"{name}.{variable}", of_cell(cell))
        yield from ((name, function.__defaults__), (name, function.__kwdefaults__), (name, vars(function)))
        home = function.__globals__
        if _package(home.get("__name__", "sys")) in STATELESS:
            return
        names = _names(function.__code__)
        used = [home[key] for key in names & home.keys()]
        modules = [m for m in used if isinstance(m, types.ModuleType) and _package(m.__name__) not in STATELESS]
        for space in (home, *map(vars, modules)):
            yield from self._hold(str(space["__name__"]), of_names(space, names))

    def _instance(self, name: str, value: Any) -> Iterator[Child]:
        if isinstance(value, types.ModuleType):
            return
        if "__dict__" in dir(type(value)):
            yield from self._hold(name, of_mapping(vars(value)))
        access = of_slots(value)
        if access[0]():
            yield from self._hold(name, access)
        yield name, type(value)


def _cached(name: str, wrapper: Any) -> Iterator[Child]:
    # A cached `build_model` returns one live module for ever, and only the collector sees into the cache.
    for item in gc.get_referents(wrapper):
        if isinstance(item, dict) and item is not vars(wrapper):
            for found in item.values():
                link = type(found).__name__ == "_lru_list_elem"
                yield from ((f"{name}()", kept) for kept in (gc.get_referents(found) if link else [found]))
    yield name, wrapper.__wrapped__


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def _names(code: types.CodeType) -> set[str]:
    nested = [_names(item) for item in code.co_consts if isinstance(item, types.CodeType)]
    return set(code.co_names).union(*nested)
