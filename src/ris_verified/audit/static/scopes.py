"""The scopes of a module: what each binds, what each reads, and what runs when."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ris_verified.audit.static.syntax import called_name, text_of

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NAME_ERRORS = {"NameError", "UnboundLocalError"}


class Scope:
    """One scope.

    Args:
        node: module, class, function, lambda or comprehension.
        parent: the scope around it.
        order: how many bindings its parent had when it was made.
    """

    def __init__(self, node: ast.AST, parent: Scope | None, order: int = 0) -> None:
        self.node, self.parent, self.order = node, parent, order
        self.children: list[Scope] = []
        self.bound: set[str] = set()
        self.given: set[str] = set()
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.typing_only: set[str] = set()
        self.loads: dict[str, list[int]] = {}
        self.lazy: dict[str, list[int]] = {}
        self.firm: set[str] = set()
        self.may_end = False
        self.early: set[str] = set()
        self.definite: dict[str, int] = {}
        self.shared: set[str] = set()
        if parent is not None:
            parent.children.append(self)

    @property
    def is_class(self) -> bool:
        """Whether names of this scope are hidden from the functions in it."""
        return isinstance(self.node, ast.ClassDef)

    def owner(self, name: str) -> Scope | None:
        """Return the scope that a name read here belongs to, None for the module or a builtin."""
        scope: Scope | None = self
        while scope is not None and scope.parent is not None:
            if name in scope.globals:
                return None
            if name in scope.bound and name not in scope.nonlocals and (scope is self or not scope.is_class):
                return scope
            scope = scope.parent
        return None

    def all(self) -> Iterator[Scope]:
        """Yield this scope and every scope in it."""
        yield self
        for child in self.children:
            yield from child.all()


def typing_test(test: ast.expr) -> int:
    """Return 1 for `TYPE_CHECKING`, −1 for `not TYPE_CHECKING`, else 0."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return -typing_test(test.operand)
    return int(isinstance(test, ast.Name | ast.Attribute) and called_name(test) == "TYPE_CHECKING")


def catches_names(node: ast.Try) -> bool:
    """Whether a handler expects that a name is missing."""
    types = [handler.type for handler in node.handlers if handler.type is not None]
    flat = [part for kind in types for part in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
    return any(called_name(part) in NAME_ERRORS for part in flat)


def swallows(node: ast.With | ast.AsyncWith) -> bool:
    """Whether a `with` may go on after an exception in its body."""
    for item in node.items:
        call = item.context_expr
        name = called_name(call.func) if isinstance(call, ast.Call) else ""
        if name in ("suppress", "raises", "warns_or_raises") or name.startswith("assertRaises"):
            return True
    return False


def literal_all(tree: ast.Module) -> list[tuple[int, str]]:
    """Return line and text of every name in a literal `__all__`."""
    found = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets) and isinstance(node, ast.Assign):
            items = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else []
            found += [(item.lineno, text) for item in items if (text := text_of(item))]
    return found
