"""Uses of names that some path leaves unbound, expression by expression."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable

from ris_verified.audit.static.certain import runs_if
from ris_verified.audit.static.facts import MUTATORS, Facts, constant_fact, fact_of, known, path, without
from ris_verified.audit.static.index import children
from ris_verified.audit.static.scopes import COMPREHENSIONS, Scope, typing_test
from ris_verified.audit.static.syntax import called_name, text_of
from ris_verified.audit.static.worlds import Closure, Finding, State, join

BODIES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SPECIAL = {ast.BoolOp, ast.IfExp, ast.NamedExpr, ast.Lambda, ast.Call, *COMPREHENSIONS}
ASKING = {ast.If, ast.While, ast.IfExp, ast.Assert, ast.For, ast.comprehension, ast.Assign}
BUDGET = 20_000  # statements, loops counted as often as they are followed


class Uses:
    """Follows the watched names of one scope through its expressions.

    Args:
        scope: what to follow.
        nodes: all nodes of the scope.
        watched: names that some path might leave unbound.
        ends: names of functions that never return.
        filled: names of containers that are never empty.
    """

    def __init__(
        self, scope: Scope, nodes: Iterable[ast.AST], watched: Iterable[str], ends: set[str], filled: set[str]
    ) -> None:
        self.scope, self.ends, self.filled = scope, ends, filled
        self.bits = {name: 1 << i for i, name in enumerate(sorted(watched))}
        self.found: dict[str, Finding] = {}
        self.breaks: list[list[State]] = []
        self.continues: list[list[State]] = []
        self.collectors: list[list[State]] = []
        self.left, self.guarded = BUDGET, 0
        self.inner = {child.node: child for child in scope.children}
        self.closures: dict[str, Closure] = {}
        self.escapes: dict[int, tuple[int, Closure]] = {}
        self._closures()
        self.body: list[ast.stmt] = scope.node.body if isinstance(scope.node, BODIES) else []
        self.tests = self._tests(nodes)

    def _closures(self) -> None:
        seen: Counter[str] = Counter()
        for child in self.scope.children:
            if isinstance(child.node, ast.FunctionDef | ast.AsyncFunctionDef):
                seen[child.node.name] += 1
                self.closures[child.node.name] = frozenset(self._free(child))
        for name, count in seen.items():
            if count > 1:
                del self.closures[name]

    def _free(self, child: Scope) -> set[tuple[str, bool]]:
        found = {(n, n in child.firm) for n in child.loads if n in self.bits and child.owner(n) is self._owner()}
        for inner in child.children:
            if isinstance(inner.node, COMPREHENSIONS):
                found |= self._free(inner)
        return found

    def _owner(self) -> Scope | None:
        return self.scope if self.scope.parent is not None else None

    def _tests(self, nodes: Iterable[ast.AST]) -> Counter[str]:
        count: Counter[str] = Counter()
        for node in nodes:
            if type(node) not in ASKING:
                continue
            if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
                count.update(_asked_of(node.test))
            elif isinstance(node, ast.For | ast.comprehension):
                count[path(node.iter)] += 1
                count.update({text: 1 for test in runs_if(node.iter) for text in _asked_of(test)})
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                count.update(text for target in node.targets if (text := path(target)))
        return count

    def report(self, name: str, line: int, state: State, fault: str = "may be unbound here") -> None:
        """Note a use that some world leaves unbound."""
        bit = self.bits[name]
        if not self.guarded and any(not mask & bit for mask, _ in state):
            self.found.setdefault(name, (line, name, fault))

    def report_call(self, names: Closure, line: int, state: State, fault: str) -> None:
        """Note what a called function reads: always what it reads in any case, the rest where no world binds it."""
        for name, firm in names:
            if firm or not any(mask & self.bits[name] for mask, _ in state):
                self.report(name, line, state, fault)

    def bind(self, state: State, names: Iterable[str], value: ast.expr | None = None) -> State:
        """Return the state with names bound, and what a literal tells of them."""
        given = set(names)
        if not given:
            return state
        bits = 0
        for name in given:
            bits |= self.bits.get(name, 0)
        told: Facts = constant_fact(next(iter(given)), value) if len(given) == 1 else frozenset()
        if told and self.tests[next(iter(given))] < 2:
            told = frozenset()
        return tuple((mask | bits, without(facts, given) | told) for mask, facts in state)

    def unbind(self, state: State, names: Iterable[str]) -> State:
        """Return the state with names unbound."""
        bits = 0
        for name in names:
            bits |= self.bits.get(name, 0)
        return tuple((mask & ~bits, facts) for mask, facts in state) if bits else state

    def use(self, node: ast.AST | None, state: State, hidden: frozenset[str] = frozenset()) -> State:
        """Note loads of names that may be unbound; return the state after the expression."""
        if node is None or not state:
            return state
        kind = type(node)
        if kind is ast.Name:
            return self._use_name(node, state, hidden)  # type: ignore[arg-type]
        if kind is ast.Constant:
            return state
        if kind not in SPECIAL:
            return self.use_all(children(node), state, hidden)
        if isinstance(node, ast.BoolOp):
            return join(*self.condition(node, state, hidden))
        if isinstance(node, ast.IfExp):
            yes, no = self.condition(node.test, state, hidden)
            return join(self.use(node.body, yes, hidden), self.use(node.orelse, no, hidden))
        if isinstance(node, ast.NamedExpr):
            return self.bind(self.use(node.value, state, hidden), {node.target.id})
        if isinstance(node, ast.Lambda):
            state = self.use_all([*node.args.defaults, *node.args.kw_defaults], state, hidden)
            return self._escape(node, self._free(self.inner[node]), state) if node in self.inner else state
        if isinstance(node, COMPREHENSIONS):
            return self._comprehension(node, state, hidden)
        return self._call(node, state, hidden) if isinstance(node, ast.Call) else state

    def use_all(self, nodes: Iterable[ast.AST | None], state: State, hidden: frozenset[str] = frozenset()) -> State:
        """Use several expressions in turn."""
        for node in nodes:
            state = self.use(node, state, hidden)
        return state

    def _use_name(self, node: ast.Name, state: State, hidden: frozenset[str]) -> State:
        if not isinstance(node.ctx, ast.Load) or node.id in hidden:
            return state
        if node.id in self.bits:
            self.report(node.id, node.lineno, state)
            # Whoever gets past a use has found the name.
            bit = self.bits[node.id]
            state = tuple((mask | bit, facts) for mask, facts in state)
        if node.id in self.closures:
            return self._escape(node, self.closures[node.id], state)
        return state

    def _escape(self, node: ast.expr, names: Iterable[tuple[str, bool]], state: State) -> State:
        # A function that is handed on may be called late: what it reads is asked for where the scope is left.
        free = frozenset(names)
        if not free or self.scope.parent is None:
            return state
        if id(node) not in self.escapes:
            self.escapes[id(node)] = (node.lineno, free)
        bit = 1 << (len(self.bits) + list(self.escapes).index(id(node)))
        return tuple((mask | bit, facts) for mask, facts in state)

    def leave(self, state: State) -> None:
        """Ask for the names of functions that were handed on, where the scope is left."""
        for i, (line, names) in enumerate(self.escapes.values()):
            handed = tuple(world for world in state if world[0] >> (len(self.bits) + i) & 1)
            if handed:
                self.report_call(names, line, handed, "may be unbound when this function is called")

    def _call(self, node: ast.Call, state: State, hidden: frozenset[str]) -> State:
        name = called_name(node.func)
        if isinstance(node.func, ast.Name) and name in self.closures and name not in hidden:
            if state:
                self.report_call(self.closures[name], node.lineno, state, f"may be unbound when {name} is called here")
            if name in self.bits:
                self.report(name, node.lineno, state)
        else:
            state = self.use(node.func, state, hidden)
        state = self.use_all([*node.args, *(k.value for k in node.keywords)], state, hidden)
        if name in MUTATORS and isinstance(node.func, ast.Attribute) and (text := path(node.func.value)):
            state = tuple((mask, without(facts, {text})) for mask, facts in state)
        return state

    def _comprehension(self, node: ast.expr, state: State, hidden: frozenset[str]) -> State:
        parts = node.generators  # type: ignore[attr-defined]
        for i, part in enumerate(parts):
            state = self.use(part.iter, state, hidden)
            hidden |= frozenset(targets(part.target))
            entered = state
            for test in part.ifs:
                entered, _ = self.condition(test, entered, hidden)
            state = entered or state
            if i == 0 and not entered:
                return state
        body = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]  # type: ignore[attr-defined]
        return self.use_all(body, state, hidden)

    def condition(self, test: ast.expr, state: State, hidden: frozenset[str] = frozenset()) -> tuple[State, State]:
        """Return the states where a test is true and where it is false."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yes, no = self.condition(test.operand, state, hidden)
            return no, yes
        if isinstance(test, ast.BoolOp):
            return self._bool(test, state, hidden)
        if isinstance(test, ast.Constant):
            return (state, ()) if test.value else ((), state)
        if typing_test(test):
            return (), state
        state = self.use(test, state, hidden)
        named = test.left if isinstance(test, ast.Compare) else test
        if isinstance(named, ast.NamedExpr):
            test = ast.copy_location(ast.Name(named.target.id, ast.Load()), test) if named is test else test
        return self._split(test, state)

    def _bool(self, test: ast.BoolOp, state: State, hidden: frozenset[str]) -> tuple[State, State]:
        out: list[State] = []
        conjunction = isinstance(test.op, ast.And)
        for value in test.values:
            yes, no = self.condition(value, state, hidden)
            state, other = (yes, no) if conjunction else (no, yes)
            out.append(other)
        return (state, join(*out)) if conjunction else (join(*out), state)

    def _split(self, test: ast.expr, state: State) -> tuple[State, State]:
        if (name := _asked(test)) in self.bits:
            return self.bind(state, {name}), state
        fact = fact_of(test)
        if fact is None or self.tests[fact[0][0]] < 2 or self.left < 0:
            return state, state
        key, sign = fact
        yes, no = [], []
        for mask, facts in state:
            answer = known(facts, key)
            if answer is not False:
                yes.append((mask, facts | {(key, True)}))
            if answer is not True:
                no.append((mask, facts | {(key, False)}))
        return (tuple(yes), tuple(no)) if sign else (tuple(no), tuple(yes))


def targets(node: ast.AST) -> set[str]:
    """Return the names that a target, a pattern or a statement without a body binds."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    found: set[str] = set()
    if isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
        found.add(node.name)
    elif isinstance(node, ast.MatchMapping) and node.rest:
        found.add(node.rest)
    elif isinstance(node, ast.Lambda | ast.Constant | ast.Attribute | ast.Subscript | ast.Call):
        return found
    for child in children(node):
        if not isinstance(child, COMPREHENSIONS):
            found |= targets(child)
    return found


def _asked_of(test: ast.expr) -> Iterable[str]:
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _asked_of(value)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _asked_of(test.operand)
    elif fact := fact_of(test):
        yield fact[0][0]


def _asked(test: ast.expr) -> str:
    # `"x" in locals()` asks whether a name is bound.
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.In):
        call = test.comparators[0]
        if isinstance(call, ast.Call) and called_name(call.func) in ("locals", "vars", "globals", "dir"):
            return text_of(test.left) or ""
    return ""
