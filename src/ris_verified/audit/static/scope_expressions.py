"""Which names the expressions of a scope bind and read."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import ClassVar

from ris_verified.audit.static.index import children
from ris_verified.audit.static.scopes import COMPREHENSIONS, Scope
from ris_verified.audit.static.syntax import arguments, called_name


class Expressions:
    """Notes what is bound and read while a module is walked.

    Args:
        tree: the module.
        postponed: whether annotations are not evaluated.
    """

    handlers: ClassVar[dict[type, Callable[..., None]]] = {}

    def __init__(self, tree: ast.Module, postponed: bool) -> None:
        self.open, self.depth, self.typing, self.guarded = False, 0, 0, 0
        self.postponed = postponed
        self.module = self.scope = Scope(tree, None)

    def bind(self, name: str, scope: Scope | None = None) -> None:
        """Note that a name is bound here, for certain where no branch is around it."""
        scope = scope or self.scope
        if self.typing:
            scope.typing_only.add(name)
            return
        scope.bound.add(name)
        if not self.depth and name not in scope.definite:
            scope.definite[name] = len(scope.definite)

    def load(self, name: str, line: int) -> None:
        """Note that a name is read here."""
        scope = self.scope
        if self.typing or self.guarded:
            return
        scope.loads.setdefault(name, []).append(line)
        if not (self.depth or scope.may_end):
            scope.firm.add(name)
        if name not in scope.definite:
            scope.early.add(name)

    def block(self, statements: Iterable[ast.stmt], branch: bool = False) -> None:
        """Read statements, in a branch or not."""
        self.depth += branch
        for statement in statements:
            self.visit(statement)
        self.depth -= branch

    def visit(self, node: ast.AST | None) -> None:
        """Read one node."""
        if node is None:
            return
        kind = type(node)
        if kind is ast.Name:
            self._name(node)  # type: ignore[arg-type]
        elif kind is not ast.Constant:
            handler = self.handlers.get(kind)
            if handler is not None:
                handler(self, node)
            else:
                for child in children(node):
                    self.visit(child)

    def all_of(self, nodes: Iterable[ast.AST | None]) -> None:
        """Read several nodes."""
        for node in nodes:
            self.visit(node)

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif isinstance(node.ctx, ast.Del):
            # A name that is deleted is a local, and it is bound no more.
            self.scope.bound.add(node.id)
            self.scope.early.add(node.id)
            self.scope.definite.pop(node.id, None)
        else:
            self.load(node.id, node.lineno)

    def _annotation(self, node: ast.expr | None, never: bool = False) -> None:
        if node is None:
            return
        if not (self.postponed or never):
            self.visit(node)
            return
        kept, self.scope.loads = self.scope.loads, self.scope.lazy
        early = set(self.scope.early)
        self.visit(node)
        self.scope.loads, self.scope.early = kept, early

    def _inside(self, node: ast.AST, names: Iterable[str], read: Callable[[], None]) -> None:
        outer, depth, guarded = self.scope, self.depth, self.guarded
        self.scope = Scope(node, outer, len(outer.definite))
        self.depth = self.guarded = 0
        for name in names:
            self.bind(name)
            self.scope.given.add(name)
        read()
        self.scope, self.depth, self.guarded = outer, depth, guarded

    def function_lambda(self, node: ast.Lambda) -> None:
        """Read a lambda."""
        self.all_of([*node.args.defaults, *node.args.kw_defaults])
        self._inside(node, [a.arg for a in arguments(node.args)], lambda: self.visit(node.body))

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        """Read a comprehension: the first iterable outside, the rest inside."""
        self.visit(node.generators[0].iter)

        def read() -> None:
            for i, part in enumerate(node.generators):
                if i:
                    self.visit(part.iter)
                self.visit(part.target)
                self.all_of(part.ifs)
            self.all_of([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

        self._inside(node, (), read)

    def walrus(self, node: ast.NamedExpr) -> None:
        """Read `name := value`, which binds outside of comprehensions."""
        self.visit(node.value)
        scope = self.scope
        while isinstance(scope.node, COMPREHENSIONS) and scope.parent is not None:
            scope = scope.parent
        self.bind(node.target.id, scope)

    def pattern(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        """Read a pattern that binds."""
        for child in children(node):
            self.visit(child)
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self.bind(name)

    def branches(self, node: ast.BoolOp | ast.IfExp) -> None:
        """Read an expression whose later parts may not run."""
        parts = children(node)
        first = node.test if isinstance(node, ast.IfExp) else node.values[0]
        self.visit(first)
        self.depth += 1
        self.all_of(part for part in parts if part is not first)
        self.depth -= 1

    def call(self, node: ast.Call) -> None:
        """Read a call; names that are made at run time cannot be known."""
        name = called_name(node.func)
        if name in ("_convert_", "_convert") or (name in ("exec", "execfile") and isinstance(node.func, ast.Name)):
            self.open = True
        elif name in ("update", "setdefault") and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            self.open |= is_call(owner, "globals") or (
                self.scope is self.module and (is_call(owner, "vars") or is_call(owner, "locals"))
            )
        elif name == "setattr" and node.args and "__name__" in ast.dump(node.args[0]):
            self.open = True
        for child in children(node):
            self.visit(child)

    def type_parameter(self, node: ast.AST) -> None:
        """Read `T` of `def f[T]`, and `type T = …`."""
        for child in children(node):
            self.visit(child)
        name = getattr(node, "name", "")
        if isinstance(name, str) and name:
            self.bind(name)


def is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
