"""Definite assignment over the statements of one scope, branch by branch."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable

from ris_verified.audit.static.certain import is_safe, matches_all, never_empty, never_returns, runs_if
from ris_verified.audit.static.facts import constant_fact, path, without
from ris_verified.audit.static.flow_uses import Uses, targets
from ris_verified.audit.static.index import children
from ris_verified.audit.static.scopes import catches_names, swallows
from ris_verified.audit.static.worlds import Finding, State, join

ROUNDS = 4


class Flow(Uses):
    """Follows the watched names of one scope through its statements."""

    def run(self) -> list[Finding]:
        """Return line, name and fault of every use that some path leaves unbound."""
        self.leave(self.block(self.body, ((0, frozenset()),)))
        return list(self.found.values())

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
        if self.collectors and not is_safe(node):
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
        return () if isinstance(call, ast.Call) and never_returns(call, self.ends) else after

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
        if never_empty(node.iter, self.filled - set(self.bits)) or self._told_to_run(node.iter, state):
            skips = ()

        def turn(head: State) -> tuple[State, State]:
            begun = self.bind(self.use(node.target, head), names)
            end = self.block(node.body, begun)
            return end, join(end, *self.continues[-1])

        done, breaks = self._loop(enters, turn)
        return join(self.block(node.orelse, join(skips, done)), *breaks)

    def _told_to_run(self, iterated: ast.expr, state: State) -> bool:
        """Whether a test that lies behind says that a loop runs."""
        return bool(state) and any(not self._split(test, state)[0] for test in runs_if(iterated))

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
        guarded = catches_names(node)
        self.guarded += guarded
        end = self.block(node.body, state)
        self.guarded -= guarded
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
            no: State = () if matches_all(case.pattern) else state
            if case.guard is not None:
                yes, failed = self.condition(case.guard, yes)
                no = join(no, failed)
            ends.append(self.block(case.body, yes))
            state = no
        return join(*ends, state)


STATEMENTS: dict[type, Callable[..., State]] = {
    ast.Assign: Flow.assign, ast.FunctionDef: Flow.function, ast.AsyncFunctionDef: Flow.function,
    ast.ClassDef: Flow.class_, ast.Import: Flow.imports, ast.ImportFrom: Flow.imports,
    ast.AnnAssign: Flow.annotated, ast.AugAssign: Flow.augmented, ast.Return: Flow.leave_with, ast.Raise: Flow.stop,
    ast.Expr: Flow.expression, ast.Assert: Flow.assertion, ast.Delete: Flow.delete, ast.If: Flow.if_,
    ast.Break: Flow.break_, ast.Continue: Flow.continue_, ast.While: Flow.while_, ast.For: Flow.for_,
    ast.AsyncFor: Flow.for_, ast.With: Flow.with_, ast.AsyncWith: Flow.with_, ast.Try: Flow.try_,
    ast.Match: Flow.match, ast.TryStar: Flow.try_,
}  # fmt: skip  # fmt: skip
