"""The graph of module-level imports and its cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from ris_verified.audit.static.scopes import typing_test
from ris_verified.audit.static.syntax import Tree


def module_names(tree: Tree) -> dict[str, str]:
    """Return the file of each module by its dotted name, as seen from inside the folder."""
    found = {}
    for file in tree.files:
        parts = list(PurePosixPath(file.name).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.name
    return found


def cycles(tree: Tree) -> list[list[str]]:
    """Return the groups of modules that import each other, each in order of a walk through it."""
    known = module_names(tree)
    graph: dict[str, set[str]] = {name: set() for name in known}
    by_file = {file: name for name, file in known.items()}
    for file, module in tree.parsed:
        here = by_file[file.name]
        is_package = file.name.endswith("__init__.py")
        for target in _imports(module, here, is_package, tree.folder.name):
            found = _resolve(target, known)
            if found is not None and found != here:
                graph[here].add(found)
    return [sorted(group) for group in _components(graph) if len(group) > 1]


def _resolve(target: str, known: dict[str, str]) -> str | None:
    while target:
        if target in known:
            return target
        target = target.rpartition(".")[0]
    return None


def _imports(tree: ast.Module, here: str, is_package: bool, root: str) -> Iterator[str]:
    for node in _executed(tree.body):
        if isinstance(node, ast.Import):
            yield from (_below(alias.name, root) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = import_base(node, here, is_package)
            base = base if node.level else _below(base, root)
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)


def import_base(node: ast.ImportFrom, here: str, is_package: bool) -> str:
    """Return the dotted module that `from … import` names, as seen from the module `here`."""
    base = node.module or ""
    if not node.level:
        return base
    parts = here.split(".") if here else []
    keep = len(parts) - node.level + (1 if is_package else 0)
    return ".".join([*parts[: max(keep, 0)], *([base] if base else [])])


def _below(name: str, root: str) -> str:
    return name.removeprefix(f"{root}.") if name.startswith(f"{root}.") else name


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    stack = list(reversed(body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If):
            sign = typing_test(node.test)
            below = [*(node.body if sign != 1 else ()), *(node.orelse if sign != -1 else ())]
        elif isinstance(node, ast.Try):
            below = [*node.body, *(s for h in node.handlers for s in h.body), *node.orelse, *node.finalbody]
        elif isinstance(node, ast.ClassDef | ast.With):
            below = node.body
        else:
            yield node
            continue
        stack += reversed(below)


def _components(graph: dict[str, set[str]]) -> list[list[str]]:
    # Tarjan's walk with a stack of its own: each edge is followed once.
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    held: list[str] = []
    waiting: set[str] = set()
    groups = []
    for start in graph:
        todo = [] if start in order else [(start, iter(sorted(graph[start])))]
        while todo:
            name, others = todo[-1]
            if name not in order:
                order[name] = low[name] = len(order)
                held.append(name)
                waiting.add(name)
            for other in others:
                if other not in order:
                    todo.append((other, iter(sorted(graph[other]))))
                    break
                if other in waiting:
                    low[name] = min(low[name], order[other])
            else:
                todo.pop()
                if todo:
                    low[todo[-1][0]] = min(low[todo[-1][0]], low[name])
                if low[name] == order[name]:
                    group = held[held.index(name) :]
                    del held[-len(group) :]
                    waiting -= set(group)
                    groups.append(group)
    return groups
