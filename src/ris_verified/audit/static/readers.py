"""Functions of a tree that read a value by a name that their caller gives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from ris_verified.audit.static.syntax import Function, Tree, arguments, called_name, root_name

READERS = {"getattr", "hasattr", "select", "deepgetattr", "rgetattr", "__getattribute__"}


@dataclass(frozen=True)
class Reader:
    """A function with `getattr(owner, name, …)`, `owner.get(name, …)` or `owner[name]` on a parameter.

    Args:
        parameters: names of its parameters, without `self`.
        name: the parameter that is the name.
        owner: what is read from: a parameter or what the function sees around it.
    """

    parameters: tuple[str, ...]
    name: str
    owner: ast.expr

    def given(self, call: ast.Call) -> tuple[ast.expr | None, ast.expr | None]:
        """Return the name and the value to read from of a call, None where it does not say."""
        named = {k.arg: k.value for k in call.keywords if k.arg}
        by_place = dict(zip(self.parameters, call.args, strict=False))
        if any(isinstance(a, ast.Starred) for a in call.args):
            return None, None
        passed = {**by_place, **named}
        owner: ast.expr | None = self.owner
        if isinstance(owner, ast.Name) and owner.id in self.parameters:
            owner = passed.get(owner.id)
        return passed.get(self.name), owner


def readers_of(tree: Tree) -> dict[str, list[Reader]]:
    """Return the readers of a tree by name; a name with several meanings has none."""
    found: dict[str, list[Reader]] = {}
    count: dict[str, int] = {}
    for file, _ in tree.parsed:
        for node in file.index.functions:
            count[node.name] = count.get(node.name, 0) + 1
            if made := list(_readers(node, file.index.below(node))):
                found[node.name] = made
    return {name: readers for name, readers in found.items() if count[name] == 1}


def _readers(function: Function, below: list[ast.AST]) -> Iterator[Reader]:
    names = [a.arg for a in arguments(function.args)]
    own = tuple(names[1:] if names[:1] in (["self"], ["cls"]) else names)
    for node in below:
        owner, wanted = _asked(node)
        if owner is None or not isinstance(wanted, ast.Name) or wanted.id not in own:
            continue
        # Of what a parameter holds inside, the caller says nothing.
        if isinstance(owner, ast.Name) or root_name(owner) not in own:
            yield Reader(own, wanted.id, owner)


def _asked(node: ast.AST) -> tuple[ast.expr | None, ast.expr | None]:
    """Return what a node reads from and by which name."""
    if isinstance(node, ast.Subscript):
        return node.value, node.slice
    if not isinstance(node, ast.Call):
        return None, None
    if called_name(node.func) in READERS and len(node.args) > 1:
        return node.args[0], node.args[1]
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        return node.func.value, node.args[0]
    return None, None
