"""Building the scopes of a module in one walk."""

from __future__ import annotations

import ast
from collections.abc import Callable

from ris_verified.audit.static.index import children
from ris_verified.audit.static.scope_expressions import Expressions, is_call
from ris_verified.audit.static.scopes import COMPREHENSIONS, catches_names, swallows, typing_test
from ris_verified.audit.static.syntax import arguments, called_name


class ScopeReader(Expressions):
    """Builds the scopes of one module in one walk.

    Args:
        tree: the module.
        stars: exported names of a module that is imported with a star, None where they are unknown.
    """

    def __init__(self, tree: ast.Module, stars: Callable[[ast.ImportFrom], set[str] | None]) -> None:
        self.stars = stars
        postponed = any(
            isinstance(n, ast.ImportFrom) and n.module == "__future__" and any(a.name == "annotations" for a in n.names)
            for n in tree.body
        )
        super().__init__(tree, postponed)
        self.block(tree.body)
        for scope in self.module.all():
            for name in scope.globals & scope.bound:
                self.module.bound.add(name)
                self.module.shared.add(name)
            for name in scope.nonlocals:
                holder = scope.parent.owner(name) if scope.parent else None
                if holder is not None and name in scope.bound:
                    holder.shared.add(name)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Read a function: decorators and defaults outside, the body inside."""
        args = node.args
        self.all_of([*node.decorator_list, *args.defaults, *args.kw_defaults])
        types: list[ast.AST] = getattr(node, "type_params", [])

        def signature() -> None:
            self.all_of(types)
            for argument in arguments(args):
                self._annotation(argument.annotation)
            self._annotation(node.returns)

        def whole() -> None:
            signature()
            self._body(node)

        if types:
            self._inside(node, (), whole)
        else:
            whole()
        self.bind(node.name)

    def _body(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        names = [a.arg for a in arguments(node.args)]
        self._inside(node, names, lambda: self.block(node.body))

    def class_(self, node: ast.ClassDef) -> None:
        """Read a class."""
        self.open |= any(called_name(d) == "global_enum" for d in node.decorator_list)
        self.all_of(node.decorator_list)
        types: list[ast.AST] = getattr(node, "type_params", [])

        def read() -> None:
            self.all_of([*types, *node.bases, *node.keywords])
            self._inside(node, (), lambda: self.block(node.body))

        if types:
            self._inside(node, (), read)
        else:
            read()
        self.bind(node.name)

    def imports(self, node: ast.Import | ast.ImportFrom) -> None:
        """Read an import."""
        for alias in node.names:
            if alias.name == "*" and isinstance(node, ast.ImportFrom):
                names = self.stars(node)
                self.open |= names is None
                for name in names or ():
                    self.bind(name)
            else:
                self.bind(alias.asname or alias.name.split(".")[0])

    def declared(self, node: ast.Global | ast.Nonlocal) -> None:
        """Read `global` and `nonlocal`."""
        target = self.scope.globals if isinstance(node, ast.Global) else self.scope.nonlocals
        if self.scope is not self.module:
            target |= set(node.names)

    def end(self, node: ast.Return | ast.Raise) -> None:
        """Read `return` and `raise`: in a branch, what follows may not run."""
        for child in children(node):
            self.visit(child)
        self.scope.may_end |= self.depth > 0

    def if_(self, node: ast.If) -> None:
        """Read a branch; what is bound for the type checker only is kept apart."""
        sign = typing_test(node.test)
        self.visit(node.test)
        self.typing += sign == 1
        self.block(node.body, branch=sign != -1)
        self.typing += (sign == -1) - (sign == 1)
        self.block(node.orelse, branch=sign != 1)
        self.typing -= sign == -1

    def loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        """Read a loop."""
        self.visit(node.test if isinstance(node, ast.While) else node.iter)
        self.depth += 1
        if not isinstance(node, ast.While):
            self.visit(node.target)
        self.block([*node.body, *node.orelse])
        self.depth -= 1

    def try_(self, node: ast.Try) -> None:
        """Read `try`; a handler of NameError says that a name may be missing."""
        caught = catches_names(node)
        self.guarded += caught
        self.block(node.body, branch=True)
        self.guarded -= caught
        for handler in node.handlers:
            self.visit(handler.type)
            self.depth += 1
            if handler.name:
                self.bind(handler.name)
            self.block(handler.body)
            self.depth -= 1
            if handler.name:
                # The name of a caught exception ends with the block, whatever held it before.
                self.scope.early.add(handler.name)
                self.scope.definite.pop(handler.name, None)
        self.block(node.orelse, branch=True)
        self.block(node.finalbody)

    def with_(self, node: ast.With | ast.AsyncWith) -> None:
        """Read `with`; one that swallows makes a branch."""
        for item in node.items:
            self.visit(item.context_expr)
            self.visit(item.optional_vars)
        self.block(node.body, branch=swallows(node))

    def match(self, node: ast.Match) -> None:
        """Read `match`."""
        self.visit(node.subject)
        self.depth += 1
        for case in node.cases:
            self.visit(case.pattern)
            self.visit(case.guard)
            self.block(case.body)
        self.depth -= 1

    def augmented(self, node: ast.AugAssign) -> None:
        """Read `x += value`."""
        if isinstance(node.target, ast.Name):
            self.load(node.target.id, node.lineno)
        self.visit(node.value)
        self.visit(node.target)

    def annotated(self, node: ast.AnnAssign) -> None:
        """Read `x: int = value`; without a value nothing is bound."""
        inner = not isinstance(self.scope.node, ast.Module | ast.ClassDef)
        self._annotation(node.annotation, never=inner)
        self.visit(node.value)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)
        elif inner or self.scope is self.module:
            self.scope.bound.add(node.target.id)

    def assign(self, node: ast.Assign) -> None:
        """Read `targets = value`."""
        self.visit(node.value)
        self.open |= is_call(node.value, "globals")
        for target in node.targets:
            self.visit(target)
            if isinstance(target, ast.Subscript) and is_call(target.value, "globals"):
                self.open = True


HANDLERS: dict[type, Callable[..., None]] = {
    ast.FunctionDef: ScopeReader.function, ast.AsyncFunctionDef: ScopeReader.function,
    ast.Lambda: ScopeReader.function_lambda, ast.ClassDef: ScopeReader.class_,
    **dict.fromkeys(COMPREHENSIONS, ScopeReader.comprehension), ast.NamedExpr: ScopeReader.walrus,
    ast.Import: ScopeReader.imports, ast.ImportFrom: ScopeReader.imports,
    ast.Global: ScopeReader.declared, ast.Nonlocal: ScopeReader.declared,
    ast.If: ScopeReader.if_, ast.For: ScopeReader.loop, ast.AsyncFor: ScopeReader.loop, ast.While: ScopeReader.loop,
    ast.Try: ScopeReader.try_, ast.With: ScopeReader.with_, ast.AsyncWith: ScopeReader.with_,
    ast.Match: ScopeReader.match, ast.MatchAs: ScopeReader.pattern, ast.MatchStar: ScopeReader.pattern,
    ast.MatchMapping: ScopeReader.pattern, ast.BoolOp: ScopeReader.branches, ast.IfExp: ScopeReader.branches,
    ast.Return: ScopeReader.end, ast.Raise: ScopeReader.end,
    ast.AugAssign: ScopeReader.augmented, ast.AnnAssign: ScopeReader.annotated, ast.Assign: ScopeReader.assign,
    ast.Call: ScopeReader.call,
}  # fmt: skip  # fmt: skip
HANDLERS |= {
    kind: ScopeReader.type_parameter
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple", "TypeAlias")
    if (kind := getattr(ast, name, None))
}
ScopeReader.handlers = HANDLERS
