"""Definite assignment over the statements of one scope, branch by branch."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable

from ris_verified.audit.facts import MUTATORS, Facts, constant_fact, fact_of, known, path, without
from ris_verified.audit.index import children
from ris_verified.audit.scopes import COMPREHENSIONS, Scope, swallows, typing_test
from ris_verified.audit.syntax import called_name, text_of

ENDS = {"exit", "_exit", "quit", "abort", "assert_never", "skipTest"}
TEST_ENDS = {"fail", "skip", "xfail"}
World = tuple[int, Facts]
State = tuple[World, ...]  # the ways to get here; none: this point is not reached
Closure = frozenset[tuple[str, bool]]  # a name that a function reads, and whether it does in any case
Finding = tuple[int, str, str]
BODIES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
WORLDS, ROUNDS, BUDGET = 12, 4, 20_000


def join(*states: State) -> State:
    """Return the worlds of several states; equal facts keep what all of them bind."""
    worlds: dict[Facts, int] = {}
    for state in states:
        for mask, facts in state:
            worlds[facts] = worlds[facts] & mask if facts in worlds else mask
    if len(worlds) > WORLDS:
        by_mask: dict[int, Facts] = {}
        for facts, mask in worlds.items():
            by_mask[mask] = by_mask[mask] & facts if mask in by_mask else facts
        worlds = {}
        for mask, facts in by_mask.items():
            worlds[facts] = worlds[facts] & mask if facts in worlds else mask
    if len(worlds) > WORLDS:
        mask, facts = -1, frozenset.intersection(*worlds)
        for other in worlds.values():
            mask &= other
        return ((mask, facts),)
    return tuple((mask, facts) for facts, mask in worlds.items())


class Flow:
    """Follows the watched names of one scope.

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
        self.left = BUDGET
        self.inner = {child.node: child for child in scope.children}
        self.closures: dict[str, Closure] = {}
        self.escapes: dict[int, tuple[int, Closure]] = {}
        self._closures()
        self.body: list[ast.stmt] = scope.node.body if isinstance(scope.node, BODIES) else []
        self.tests = self._tests(nodes)

    def run(self) -> list[Finding]:
        """Return line, name and fault of every use that some path leaves unbound."""
        self.leave(self.block(self.body, ((0, frozenset()),)))
        return list(self.found.values())

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
            if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
                count.update(_asked_of(node.test))
            elif isinstance(node, ast.For | ast.comprehension):
                count[path(node.iter)] += 1
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                count.update(text for target in node.targets if (text := path(target)))
        return count

    # Uses and bindings

    def report(self, name: str, line: int, state: State, fault: str = "may be unbound here") -> None:
        """Note a use that some world leaves unbound."""
        bit = self.bits[name]
        if any(not mask & bit for mask, _ in state):
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
        if isinstance(node, ast.Call):
            return self._call(node, state, hidden)
        return self.use_all(children(node), state, hidden)

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
        if node.id in self.closures:
            return self._escape(node, self.closures[node.id], state)
        return state

    def _escape(self, node: ast.expr, names: Iterable[tuple[str, bool]], state: State) -> State:
        # A function that is handed on may be called late: what it reads is asked for where the scope is left.
        free = frozenset(names)
        if not free:
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

    # Tests

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

    # Statements

    def block(self, statements: Iterable[ast.stmt], state: State) -> State:
        """Follow statements in turn."""
        for statement in statements:
            if not state:
                break
            state = self.statement(statement, state)
        return state

    def statement(self, node: ast.stmt, state: State) -> State:
        """Follow one statement."""
        self.left -= 1
        if self.collectors and not _is_safe(node):
            for collector in self.collectors:
                collector.append(state)
        handler = STATEMENTS.get(type(node))
        if handler is not None:
            return handler(self, node, state)
        return self.bind(self.use(node, state), targets(node))

    def assign(self, node: ast.Assign, state: State) -> State:
        """Follow `targets = value`."""
        state = self.use(node.value, state)
        names: set[str] = set()
        for target in node.targets:
            state = self.use(target, state)
            names |= targets(target)
            if isinstance(target, ast.Attribute | ast.Subscript) and (text := path(target)):
                told = constant_fact(text, node.value) if self.tests[text] > 1 else frozenset()
                state = tuple((mask, without(facts, {text}) | told) for mask, facts in state)
        return self.bind(state, names, node.value)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, state: State) -> State:
        """Follow a definition, not the body."""
        args = node.args
        state = self.use_all([*node.decorator_list, *args.defaults, *args.kw_defaults], state)
        if node.decorator_list and node.name in self.closures:
            state = self._escape(node.decorator_list[0], self.closures[node.name], state)
        return self.bind(state, {node.name})

    def class_(self, node: ast.ClassDef, state: State) -> State:
        """Follow a class, whose body runs at once."""
        state = self.use_all([*node.decorator_list, *node.bases, *node.keywords], state)
        if node in self.inner:
            for name, lines in self.inner[node].loads.items():
                if name in self.bits and name in self.inner[node].firm and name not in self.inner[node].bound:
                    self.report(name, lines[0], state)
        return self.bind(state, {node.name})

    def imports(self, node: ast.Import | ast.ImportFrom, state: State) -> State:
        """Follow an import."""
        return self.bind(state, {a.asname or a.name.split(".")[0] for a in node.names})

    def annotated(self, node: ast.AnnAssign, state: State) -> State:
        """Follow `x: int = value`."""
        if node.value is None:
            return state
        state = self.use(node.target, self.use(node.value, state))
        return self.bind(state, targets(node.target), node.value)

    def augmented(self, node: ast.AugAssign, state: State) -> State:
        """Follow `x += value`."""
        if isinstance(node.target, ast.Name) and node.target.id in self.bits:
            self.report(node.target.id, node.lineno, state)
        return self.bind(self.use_all([node.target, node.value], state), targets(node.target))

    def leave_with(self, node: ast.Return, state: State) -> State:
        """Follow `return`."""
        self.leave(self.use(node.value, state))
        return ()

    def stop(self, node: ast.stmt, state: State) -> State:
        """Follow `raise`."""
        self.use_all(children(node), state)
        return ()

    def expression(self, node: ast.Expr, state: State) -> State:
        """Follow a call; some never return."""
        after = self.use(node.value, state)
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        return () if isinstance(call, ast.Call) and self.never_returns(call) else after

    def never_returns(self, call: ast.Call) -> bool:
        """Whether a call is known to raise or to end the process."""
        name = called_name(call.func)
        if name in ENDS or name in self.ends:
            return True
        owner = path(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if name == "error":
            return "pars" in owner.lower() or owner in ("ap", "p")
        return name in TEST_ENDS and owner in ("pytest", "self", "unittest")

    def assertion(self, node: ast.Assert, state: State) -> State:
        """Follow `assert`."""
        yes, no = self.condition(node.test, state)
        self.use(node.msg, no)
        return yes

    def delete(self, node: ast.Delete, state: State) -> State:
        """Follow `del`."""
        for target in node.targets:
            if isinstance(target, ast.Name):
                if target.id in self.bits:
                    self.report(target.id, node.lineno, state)
            else:
                state = self.use(target, state)
        return self.unbind(state, {t.id for t in node.targets if isinstance(t, ast.Name)})

    def if_(self, node: ast.If, state: State) -> State:
        """Follow a branch."""
        yes, no = self.condition(node.test, state)
        return join(self.block(node.body, yes), self.block(node.orelse, no))

    def break_(self, _: ast.stmt, state: State) -> State:
        """Follow `break`."""
        if self.breaks:
            self.breaks[-1].append(state)
        return ()

    def continue_(self, _: ast.stmt, state: State) -> State:
        """Follow `continue`."""
        if self.continues:
            self.continues[-1].append(state)
        return ()

    def _loop(self, state: State, turn: Callable[[State], tuple[State, State]]) -> tuple[State, list[State]]:
        """Follow turns until nothing new comes round; return where the loop ends of itself, and the breaks."""
        head = join(state)
        for _ in range(ROUNDS):
            self.breaks.append([])
            self.continues.append([])
            end, done = turn(head)
            breaks, again = self.breaks.pop(), self.continues.pop()
            new = join(head, end, *again)
            if set(new) == set(head):
                return done, breaks
            head = new
        mask = -1
        for other, _ in head:
            mask &= other
        self.breaks.append([])
        self.continues.append([])
        end, done = turn(((mask, frozenset()),))
        return join(done, end, *self.continues.pop()), self.breaks.pop()

    def while_(self, node: ast.While, state: State) -> State:
        """Follow `while`."""

        def turn(head: State) -> tuple[State, State]:
            yes, no = self.condition(node.test, head)
            return self.block(node.body, yes), no

        done, breaks = self._loop(state, turn)
        return join(self.block(node.orelse, done), *breaks)

    def for_(self, node: ast.For | ast.AsyncFor, state: State) -> State:
        """Follow `for`, which may run no time."""
        state = self.use(node.iter, state)
        names = targets(node.target)
        text = path(node.iter) if not isinstance(node.iter, ast.Constant) else ""
        seen = bool(text) and self.tests[text] > 1
        enters, skips = state, state
        if seen:
            enters, skips = self._split(node.iter, state)
        if self.never_empty(node.iter):
            skips = ()

        def turn(head: State) -> tuple[State, State]:
            begun = self.bind(self.use(node.target, head), names)
            end = self.block(node.body, begun)
            return end, join(end, *self.continues[-1])

        done, breaks = self._loop(enters, turn)
        return join(self.block(node.orelse, join(skips, done)), *breaks)

    def never_empty(self, node: ast.expr) -> bool:
        """Whether a loop over an expression surely runs."""
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return any(not isinstance(item, ast.Starred) for item in node.elts)
        if isinstance(node, ast.Dict):
            return any(key is not None for key in node.keys)
        if isinstance(node, ast.Constant):
            return bool(node.value)
        if isinstance(node, ast.Name):
            return node.id in self.filled and node.id not in self.bits
        if not isinstance(node, ast.Call):
            return False
        name = called_name(node.func)
        if name in ("enumerate", "reversed", "sorted", "list", "tuple", "iter", "set", "tqdm"):
            return bool(node.args) and self.never_empty(node.args[0])
        if name == "zip":
            return all(self.never_empty(item) for item in node.args)
        if name in ("items", "keys", "values") and isinstance(node.func, ast.Attribute):
            return self.never_empty(node.func.value)
        if name == "range":
            return _range(node)
        return name in ("count", "cycle", "product") and all(self.never_empty(a) or name == "count" for a in node.args)

    def with_(self, node: ast.With | ast.AsyncWith, state: State) -> State:
        """Follow `with`; one that swallows may leave after any statement."""
        for item in node.items:
            state = self.use(item.context_expr, state)
            if item.optional_vars is not None:
                state = self.bind(self.use(item.optional_vars, state), targets(item.optional_vars))
        if not swallows(node):
            return self.block(node.body, state)
        self.collectors.append([])
        end = self.block(node.body, state)
        return join(end, *self.collectors.pop())

    def try_(self, node: ast.Try, state: State) -> State:
        """Follow `try`: a handler may begin after any statement, the last part runs in any case."""
        self.collectors.append([])
        self.collectors.append([])
        end = self.block(node.body, state)
        caught = join(*self.collectors.pop()) or state
        ends = [self.block(node.orelse, end)]
        for handler in node.handlers:
            begun = self.bind(self.use(handler.type, caught), {handler.name} if handler.name else ())
            after = self.block(handler.body, begun)
            ends.append(self.unbind(after, {handler.name}) if handler.name else after)
        anywhere = join(caught, *self.collectors.pop())
        after = join(*ends)
        if not node.finalbody:
            return after
        found = dict(self.found)
        self.block(node.finalbody, join(anywhere, after))
        again = self.block(node.finalbody, after)
        self.found |= found
        return again

    def match(self, node: ast.Match, state: State) -> State:
        """Follow `match`."""
        state = self.use(node.subject, state)
        ends: list[State] = []
        for case in node.cases:
            names = targets(case.pattern)
            yes = self.bind(state, names)
            no: State = () if _matches_all(case.pattern) else state
            if case.guard is not None:
                yes, failed = self.condition(case.guard, yes)
                no = join(no, failed)
            ends.append(self.block(case.body, yes))
            state = no
        return join(*ends, state)


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


def _is_safe(node: ast.stmt) -> bool:
    # What cannot raise need not be thought of as interrupted.
    if isinstance(node, ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if not isinstance(node, ast.Assign) or not all(isinstance(t, ast.Name) for t in node.targets):
        return False
    value = node.value
    empty = isinstance(value, ast.List | ast.Tuple | ast.Dict) and not children(value)
    return isinstance(value, ast.Constant | ast.Name) or empty


def _range(node: ast.Call) -> bool:
    values = [a.value if isinstance(a, ast.Constant) and isinstance(a.value, int) else None for a in node.args]
    if len(values) == 1:
        return values[0] is not None and values[0] > 0
    return len(values) == 2 and None not in values and values[0] < values[1]  # type: ignore[operator]


def _matches_all(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _matches_all(pattern.pattern)
    return isinstance(pattern, ast.MatchOr) and any(_matches_all(p) for p in pattern.patterns)


STATEMENTS: dict[type, Callable[..., State]] = {
    ast.Assign: Flow.assign, ast.FunctionDef: Flow.function, ast.AsyncFunctionDef: Flow.function,
    ast.ClassDef: Flow.class_, ast.Import: Flow.imports, ast.ImportFrom: Flow.imports,
    ast.AnnAssign: Flow.annotated, ast.AugAssign: Flow.augmented, ast.Return: Flow.leave_with, ast.Raise: Flow.stop,
    ast.Expr: Flow.expression, ast.Assert: Flow.assertion, ast.Delete: Flow.delete, ast.If: Flow.if_,
    ast.Break: Flow.break_, ast.Continue: Flow.continue_, ast.While: Flow.while_, ast.For: Flow.for_,
    ast.AsyncFor: Flow.for_, ast.With: Flow.with_, ast.AsyncWith: Flow.with_, ast.Try: Flow.try_,
    ast.Match: Flow.match, ast.TryStar: Flow.try_,
}  # fmt: skip
