"""Which names and expressions of a function reach some of its expressions."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.syntax import called_name


class Flows:
    """Which names and expressions of a function reach some of its expressions, its ends.

    Args:
        body: all nodes of the function.
        ends: what is reached.
    """

    def __init__(self, body: list[ast.AST], ends: list[ast.expr]) -> None:
        self.body = body
        self.wanted: set[int] = set()
        self.returned: set[str] = set()
        for end in ends:
            self._take(end)
        assigned = [n for n in body if isinstance(n, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr)]
        grown = ("append", "extend", "add_", "add")
        calls = [n for n in body if isinstance(n, ast.Call) and called_name(n.func) in grown]
        changed = True
        while changed:
            before = len(self.wanted)
            for node in assigned:
                targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target, value in _pairs(targets, node.value):
                    held = target.value if isinstance(target, ast.Subscript) else target
                    if isinstance(held, ast.Name) and held.id in self.returned:
                        self._take(value)
            for call in calls:
                owner = call.func.value if isinstance(call.func, ast.Attribute) else None
                if isinstance(owner, ast.Name) and owner.id in self.returned:
                    for argument in call.args:
                        self._take(argument)
            changed = len(self.wanted) > before

    def _take(self, value: ast.expr) -> None:
        stack: list[ast.AST] = [value]
        while stack:
            node = stack.pop()
            if id(node) in self.wanted:
                continue
            self.wanted.add(id(node))
            if isinstance(node, ast.Name):
                self.returned.add(node.id)
            # A test chooses, and a shape counts: neither carries a gradient in any case.
            if isinstance(node, ast.IfExp):
                stack += [node.body, node.orelse]
            elif not isinstance(node, ast.Compare | ast.Lambda):
                stack += ast.iter_child_nodes(node)

    def reaches(self, node: ast.AST) -> bool:
        """Whether an expression is part of what reaches an end."""
        return id(node) in self.wanted

    def bound_in(self, call: ast.AST) -> set[str]:
        """Return the names that a `with` on this call binds."""
        for node in self.body:
            if isinstance(node, ast.With | ast.AsyncWith) and any(item.context_expr is call for item in node.items):
                return {
                    n.id
                    for s in node.body
                    for n in ast.walk(s)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
        return set()


def _pairs(targets: list[ast.expr], value: ast.expr | None) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in targets:
        if value is None:
            continue
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            yield from zip(target.elts, value.elts, strict=True)
        elif isinstance(target, ast.Tuple):
            yield from ((item, value) for item in target.elts)
        else:
            yield target, value
