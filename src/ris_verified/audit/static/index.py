"""The nodes of one syntax tree, found in one walk and kept by type."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from typing import TypeVar

Node = TypeVar("Node", bound=ast.AST)
MARKED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ExceptHandler, ast.Module)
LEAVES = {ast.Name, ast.Constant, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Pass, ast.alias}
GAPS = {"keys", "kw_defaults", "names"}
PLAIN = {"ctx", "op", "ops", "type_ignores", "kind", "type_comment", "kwd_attrs"}


@cache
def child_fields(kind: type) -> tuple[str, ...]:
    """Return the fields of a node type that may hold nodes worth a visit."""
    if kind in LEAVES:
        return ()
    return tuple(name for name in vars(kind)["_fields"] if name not in PLAIN)


@cache
def backwards(kind: type) -> tuple[str, ...]:
    """Return the same fields, last first."""
    return child_fields(kind)[::-1]


def _nodes(values: list[object]) -> list[ast.AST]:
    # The keys of a dictionary and the defaults of keywords hold None between nodes, a global statement holds text.
    return [value for value in reversed(values) if isinstance(value, ast.AST)]


def children(node: ast.AST) -> list[ast.AST]:
    """Return the child nodes in order, without contexts and operators."""
    found: list[ast.AST] = []
    kind: type = type(node)
    for name in child_fields(kind):
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


class Index:
    """Nodes in the order of the text, with the span of every function, class and handler.

    Args:
        tree: the syntax tree.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.nodes: list[ast.AST] = []
        self.by_type: defaultdict[type[ast.AST], list[ast.AST]] = defaultdict(list)
        self.spans: dict[ast.AST, tuple[int, int]] = {}
        self._walk(tree)

    def _walk(self, tree: ast.Module) -> None:
        stack: list[ast.AST | tuple[ast.AST, int]] = [tree]
        nodes, by_type = self.nodes, self.by_type
        while stack:
            node = stack.pop()
            if isinstance(node, tuple):
                self.spans[node[0]] = (node[1], len(nodes))
                continue
            kind: type = type(node)
            if kind in MARKED:
                stack.append((node, len(nodes)))
            nodes.append(node)
            by_type[kind].append(node)
            if kind in LEAVES:
                continue
            for name in backwards(kind):
                value = getattr(node, name, None)
                if value.__class__ is list:
                    stack += _nodes(value) if name in GAPS else reversed(value)
                elif isinstance(value, ast.AST):
                    stack.append(value)

    def of(self, *kinds: type[Node]) -> list[Node]:
        """Return all nodes of some types, one type after another."""
        return [node for kind in kinds for node in self.by_type.get(kind, ())]  # type: ignore[misc]

    def below(self, node: ast.AST) -> list[ast.AST]:
        """Return a function, class or handler and all that it holds."""
        low, high = self.spans[node]
        return self.nodes[low:high]

    @property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function, nested ones too."""
        return self.of(ast.FunctionDef, ast.AsyncFunctionDef)
