"""The scopes of a module: what each binds, what each reads, and what runs when."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from ris_verified.audit.index import children
from ris_verified.audit.syntax import arguments, called_name, text_of

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


class ScopeReader:
    """Builds the scopes of one module in one walk.

    Args:
        tree: the module.
        stars: exported names of a module that is imported with a star, None where they are unknown.
    """

    def __init__(self, tree: ast.Module, stars: Callable[[ast.ImportFrom], set[str] | None]) -> None:
        self.stars, self.open, self.depth, self.typing, self.guarded = stars, False, 0, 0, 0
        self.postponed = any(
            isinstance(n, ast.ImportFrom) and n.module == "__future__" and any(a.name == "annotations" for a in n.names)
            for n in tree.body
        )
        self.module = self.scope = Scope(tree, None)
        self.block(tree.body)
        for scope in self.module.all():
            for name in scope.globals & scope.bound:
                self.module.bound.add(name)
                self.module.shared.add(name)
            for name in scope.nonlocals:
                holder = scope.parent.owner(name) if scope.parent else None
                if holder is not None and name in scope.bound:
                    holder.shared.add(name)

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
        if not self.depth:
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
            handler = HANDLERS.get(kind)
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

        typing_only = self.typing
        if types:
            self._inside(node, (), lambda: (signature(), self._body(node)) and None)
        else:
            signature()
            self._body(node)
        self.typing = typing_only
        self.bind(node.name)

    def _body(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        names = [a.arg for a in arguments(node.args)]
        self._inside(node, names, lambda: self.block(node.body))

    def function_lambda(self, node: ast.Lambda) -> None:
        """Read a lambda."""
        self.all_of([*node.args.defaults, *node.args.kw_defaults])
        self._inside(node, [a.arg for a in arguments(node.args)], lambda: self.visit(node.body))

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
        types = [n for h in node.handlers for n in ([h.type] if h.type is not None else [])]
        flat = [e for t in types for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
        caught = any(called_name(e) in NAME_ERRORS for e in flat)
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
        for target in node.targets:
            self.visit(target)
            if isinstance(target, ast.Subscript) and _is_call(target.value, "globals"):
                self.open = True

    def call(self, node: ast.Call) -> None:
        """Read a call; names that are made at run time cannot be known."""
        name = called_name(node.func)
        if name in ("_convert_", "_convert") or (name in ("exec", "execfile") and isinstance(node.func, ast.Name)):
            self.open = True
        elif name in ("update", "setdefault") and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            self.open |= _is_call(owner, "globals") or (
                self.scope is self.module and (_is_call(owner, "vars") or _is_call(owner, "locals"))
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


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def typing_test(test: ast.expr) -> int:
    """Return 1 for `TYPE_CHECKING`, −1 for `not TYPE_CHECKING`, else 0."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return -typing_test(test.operand)
    return int(isinstance(test, ast.Name | ast.Attribute) and called_name(test) == "TYPE_CHECKING")


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
    ast.AugAssign: ScopeReader.augmented, ast.AnnAssign: ScopeReader.annotated, ast.Assign: ScopeReader.assign,
    ast.Call: ScopeReader.call,
}  # fmt: skip
HANDLERS |= {
    kind: ScopeReader.type_parameter
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple")
    if (kind := getattr(ast, name, None))
}
if hasattr(ast, "TryStar"):
    HANDLERS[ast.TryStar] = ScopeReader.try_
