"""Names that are undefined, or unbound on some path through a function."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator

from ris_verified.audit.syntax import functions

MODULE_NAMES = {"__file__", "__name__", "__path__", "__doc__", "__spec__", "__builtins__", "__class__", "__module__"}
MODULE_NAMES |= {"__annotations__", "__qualname__", "__package__", "__loader__", "WindowsError"} | set(dir(builtins))
ENDS = {"exit", "_exit", "quit", "abort"}
Bound = frozenset[str]
State = Bound | None  # None: this point is not reached
Finding = tuple[int, str, str]


def unbound_names(tree: ast.Module, text: str, name: str = "source") -> list[Finding]:
    """Return line, name and what is wrong for every doubtful use of a name.

    Undefined: bound neither in the module, nor in an enclosing function, nor built in. Possibly
    unbound: a local that some path to its use does not assign. A loop may run no time and an
    exception may come before the first statement of a `try`.
    """
    found = list(_undefined(tree, text, name))
    for function in functions(tree):
        flow = _Flow(function)
        found += flow.run()
    return sorted(set(found))


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _undefined(tree: ast.Module, text: str, name: str) -> Iterator[Finding]:
    if any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(tree)):
        return
    top = symtable.symtable(text, name, "exec")
    known = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    tables = list(_tables(top))
    known |= {s.get_name() for t in tables for s in t.get_symbols() if s.is_declared_global() and s.is_assigned()}
    missing = {
        s.get_name()
        for t in tables
        for s in t.get_symbols()
        if s.is_referenced() and (s.is_global() or t is top) and not (t is not top and s.is_local())
    }
    missing -= known | MODULE_NAMES
    scopes = _local_scopes(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or node.id not in missing or not isinstance(node.ctx, ast.Load):
            continue
        if not any(low <= node.lineno <= high and node.id in names for low, high, names in scopes):
            yield node.lineno, node.id, "is not defined"


def _local_scopes(tree: ast.Module) -> list[tuple[int, int, set[str]]]:
    # A name that is missing in one function may be a local of another: keep the others out.
    scopes = []
    for f in functions(tree):
        stored = {n.id for n in ast.walk(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inner = {n.name for n in ast.walk(f) if isinstance(n, ast.FunctionDef | ast.ClassDef) and n is not f}
        arguments = {a.arg for n in ast.walk(f) if isinstance(n, ast.arguments) for a in _arguments(n)}
        scopes.append((f.lineno, f.end_lineno or f.lineno, stored | inner | arguments | _imported(f)))
    lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    return scopes + [(n.lineno, n.end_lineno or n.lineno, {a.arg for a in _arguments(n.args)}) for n in lambdas]


def _arguments(args: ast.arguments) -> list[ast.arg]:
    extra = [a for a in (args.vararg, args.kwarg) if a is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *extra]


def _imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def _targets(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _merge(states: Iterable[State]) -> State:
    reached = [s for s in states if s is not None]
    return frozenset.intersection(*reached) if reached else None


class _Flow:
    """Definite assignment over one function's statements."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.function = function
        self.locals = self._assigned()
        self.found: dict[str, Finding] = {}
        self.breaks: list[list[State]] = []

    def run(self) -> list[Finding]:
        self.block(self.function.body, frozenset())
        return list(self.found.values())

    def _assigned(self) -> set[str]:
        names: set[str] = set()
        outer: set[str] = {a.arg for a in _arguments(self.function.args)}
        stack: list[ast.AST] = list(self.function.body)
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Global | ast.Nonlocal):
                outer |= set(node.names)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            nested = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
            if not isinstance(node, nested | comprehension):
                stack += ast.iter_child_nodes(node)
        return names - outer

    def use(self, node: ast.AST | None, state: State, hidden: Bound = frozenset()) -> State:
        """Report loads of locals that are not bound; return the state with walrus targets bound."""
        if node is None or state is None:
            return state
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load) and node.id in self.locals - state - hidden:
                self.found.setdefault(node.id, (node.lineno, node.id, "may be unbound here"))
            return state
        if isinstance(node, ast.NamedExpr):
            return self.bind(self.use(node.value, state, hidden), {node.target.id})
        if isinstance(node, ast.Lambda):
            return self.use_all([*node.args.defaults, *node.args.kw_defaults], state, hidden)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            hidden |= frozenset(t for g in node.generators for t in _targets(g.target))
        return self.use_all(ast.iter_child_nodes(node), state, hidden)

    def use_all(self, nodes: Iterable[ast.AST | None], state: State, hidden: Bound = frozenset()) -> State:
        for node in nodes:
            state = self.use(node, state, hidden)
        return state

    @staticmethod
    def bind(state: State, names: Iterable[str]) -> State:
        return None if state is None else state | frozenset(names)

    def block(self, statements: list[ast.stmt], state: State) -> State:
        for statement in statements:
            state = self.statement(statement, state)
        return state

    def statement(self, node: ast.stmt, state: State) -> State:
        if state is None:
            return None
        handler = getattr(self, f"_{type(node).__name__.lower()}", None)
        return handler(node, state) if handler else self.bind(self.use(node, state), _targets(node))

    def _functiondef(self, node: ast.FunctionDef, state: State) -> State:
        defaults = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
        return self.bind(self.use_all(defaults, state), {node.name})

    _asyncfunctiondef = _functiondef

    def _classdef(self, node: ast.ClassDef, state: State) -> State:
        return self.bind(self.use_all([*node.decorator_list, *node.bases], state), {node.name})

    def _import(self, node: ast.stmt, state: State) -> State:
        return self.bind(state, _imported(node))

    _importfrom = _import

    def _annassign(self, node: ast.AnnAssign, state: State) -> State:
        return self.bind(self.use(node.value, state), _targets(node.target)) if node.value else state

    def _augassign(self, node: ast.AugAssign, state: State) -> State:
        if isinstance(node.target, ast.Name):
            self.use(ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target), state)
        return self.bind(self.use_all([node.target, node.value], state), _targets(node.target))

    def _return(self, node: ast.stmt, state: State) -> State:
        self.use_all(ast.iter_child_nodes(node), state)
        return None

    _raise = _return

    def _expr(self, node: ast.Expr, state: State) -> State:
        after = self.use(node.value, state)
        call = node.value
        ends = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name)
        name = (call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id) if ends else ""  # type: ignore[attr-defined]
        return None if name in ENDS else after

    def _delete(self, node: ast.Delete, state: State) -> State:
        gone = {t.id for t in node.targets if isinstance(t, ast.Name)}
        return None if state is None else state - gone

    def _if(self, node: ast.If, state: State) -> State:
        state = self.use(node.test, state)
        return _merge([self.block(node.body, state), self.block(node.orelse, state)])

    def _break(self, _: ast.stmt, state: State) -> State:
        if self.breaks:
            self.breaks[-1].append(state)
        return None

    def _continue(self, _: ast.stmt, state: State) -> State:
        return None

    def _while(self, node: ast.While, state: State) -> State:
        state = self.use(node.test, state)
        forever = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self.breaks.append([])
        self.block(node.body, state)
        left = self.breaks.pop()
        return _merge([*left, None if forever else self.block(node.orelse, state)])

    def _for(self, node: ast.For, state: State) -> State:
        state = self.use(node.iter, state)
        once = isinstance(node.iter, ast.Tuple | ast.List) and bool(node.iter.elts)
        self.breaks.append([])
        end = self.block(node.body, self.bind(state, _targets(node.target)))
        left = self.breaks.pop()
        return _merge([*left, self.block(node.orelse, end if once else state)])

    _asyncfor = _for

    def _with(self, node: ast.With, state: State) -> State:
        before = state
        for item in node.items:
            state = self.bind(
                self.use(item.context_expr, state), _targets(item.optional_vars) if item.optional_vars else ()
            )
        end = self.block(node.body, state)
        swallows = any(
            "suppress" in ast.dump(i.context_expr) or "raises" in ast.dump(i.context_expr) for i in node.items
        )
        return _merge([before, end]) if swallows else end

    _asyncwith = _with

    def _try(self, node: ast.Try, state: State) -> State:
        ends = [self.block(node.orelse, self.block(node.body, state))]
        for handler in node.handlers:
            caught = self.bind(self.use(handler.type, state), {handler.name} if handler.name else ())
            end = self.block(handler.body, caught)
            ends.append(None if end is None else end - {handler.name or ""} | (state or frozenset()))
        after = _merge(ends)
        final = self.block(node.finalbody, state)
        added = (final or frozenset()) - (state or frozenset())
        return self.bind(after, added) if final is not None else None

    def _match(self, node: ast.Match, state: State) -> State:
        state = self.use(node.subject, state)
        ends = []
        for case in node.cases:
            names = {n.name for n in ast.walk(case.pattern) if isinstance(n, ast.MatchAs | ast.MatchStar) and n.name}
            ends.append(self.block(case.body, self.bind(state, names)))
        catch_all = any(
            isinstance(c.pattern, ast.MatchAs) and c.pattern.pattern is None and not c.guard for c in node.cases
        )
        return _merge(ends if catch_all else [*ends, state])
