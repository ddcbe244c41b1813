"""The texts that an expression may be: literals, put together, named, looped over, or defaults of parameters."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

from ris_verified.audit.static.index import children
from ris_verified.audit.static.syntax import Function, SourceFile, arguments, called_name

Scope = Function | ast.Lambda | ast.Module
# From what is bound to a name to what the name then is.
Step = Callable[[ast.expr], "Iterable[ast.expr] | None"]
Bound = dict[str, list[tuple[ast.expr | None, tuple[Step, ...]]]]
SAME = {"sorted", "list", "tuple", "set", "frozenset", "reversed"}
# Names of names that are followed, and texts that are made.
DEEP, MOST = 6, 64


class Texts:
    """The texts of one file's expressions.

    Args:
        file: the file.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self._bound: dict[Scope, Bound] = {}

    def of(self, node: ast.expr, inside: Sequence[Scope] = ()) -> list[str]:
        """Return every text that an expression may be, none where it may be something else too or is no name.

        Args:
            node: the expression.
            inside: the functions around it, the innermost last.
        """
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        scopes = [*([self.file.tree] if self.file.tree else []), *inside]
        try:
            found = sorted(set(self._texts(node, scopes, 0)))
        except LookupError:
            return []
        return found if all(part.isidentifier() for text in found for part in text.split(".")) else []

    def _texts(self, node: ast.expr, scopes: list[Scope], depth: int) -> list[str]:
        """Return the texts.

        Raises:
            LookupError: something is no known text.
        """
        found: list[str] = []
        for value in self._values(node, scopes, depth):
            found += self._one(value, scopes, depth)
        if len(found) > MOST:
            raise LookupError
        return found

    def _one(self, node: ast.expr, scopes: list[Scope], depth: int) -> list[str]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [node.value]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            parts = [node.left, node.right]
        elif isinstance(node, ast.JoinedStr):
            plain = all(not isinstance(p, ast.FormattedValue) or p.format_spec is None for p in node.values)
            parts = [p.value if isinstance(p, ast.FormattedValue) else p for p in node.values if plain]
        else:
            raise LookupError
        if not parts:
            raise LookupError
        return ["".join(texts) for texts in product(*(self._texts(part, scopes, depth + 1) for part in parts))]

    def _values(self, node: ast.expr, scopes: list[Scope], depth: int) -> list[ast.expr]:
        """Return what a name or a choice may stand for, other expressions as they are."""
        if depth > DEEP:
            raise LookupError
        if isinstance(node, ast.IfExp):
            return [v for part in (node.body, node.orelse) for v in self._values(part, scopes, depth + 1)]
        if isinstance(node, ast.Call) and called_name(node.func) in SAME and len(node.args) == 1:
            return self._values(node.args[0], scopes, depth + 1)
        if not isinstance(node, ast.Name):
            return [node]
        for last in range(len(scopes) - 1, -1, -1):
            bindings = self._bindings(scopes[last]).get(node.id)
            if bindings:
                around = scopes[: last + 1]
                return [v for value, steps in bindings for v in self._stepped(value, steps, around, depth + 1)]
        raise LookupError

    def _stepped(
        self, value: ast.expr | None, steps: tuple[Step, ...], scopes: list[Scope], depth: int
    ) -> list[ast.expr]:
        if value is None:
            raise LookupError
        values = self._values(value, scopes, depth)
        for step in steps:
            inner: list[ast.expr] = []
            for each in values:
                taken = step(each)
                if taken is None:
                    raise LookupError
                inner += [v for part in taken for v in self._values(part, scopes, depth + 1)]
            values = inner
        return values

    def _bindings(self, scope: Scope) -> Bound:
        if scope not in self._bound:
            found: Bound = {}
            self._bound[scope] = found
            for name, value, steps in _bound_in(scope):
                found.setdefault(name, []).append((value, steps))
        return self._bound[scope]


def _bound_in(scope: Scope) -> Iterator[tuple[str, ast.expr | None, tuple[Step, ...]]]:
    """Yield every name that a function or module binds, with what to, None where that cannot be told."""
    if not isinstance(scope, ast.Module):
        args = scope.args
        last = [*args.posonlyargs, *args.args][::-1]
        given = {a.arg: d for a, d in zip(last, args.defaults[::-1], strict=False)}
        given |= {a.arg: d for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None}
        # What a caller gives instead is read where it calls.
        yield from ((a.arg, given.get(a.arg), ()) for a in arguments(args))
    for node in _own_nodes(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _paired(target, node.value, ())
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            yield from _paired(node.target, node.value, ())
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield from _paired(node.target, *_elements(node.iter))
        elif isinstance(node, ast.AugAssign):
            yield from _paired(node.target, None, ())
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield from _paired(node.optional_vars, None, ())


def _own_nodes(scope: Scope) -> Iterator[ast.AST]:
    """Yield what is in a scope, but not in functions and classes inside it."""
    todo: list[ast.AST] = [*scope.body] if isinstance(scope.body, list) else [scope.body]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            todo += children(node)


def _paired(
    target: ast.expr, value: ast.expr | None, steps: tuple[Step, ...]
) -> Iterator[tuple[str, ast.expr | None, tuple[Step, ...]]]:
    if isinstance(target, ast.Name):
        yield target.id, value, steps
    elif isinstance(target, ast.Tuple | ast.List):
        for place, part in enumerate(target.elts):
            yield from _paired(part, value, (*steps, _at(place)))


def _elements(looped: ast.expr) -> tuple[ast.expr, tuple[Step, ...]]:
    """Return what a loop goes through and how to its elements."""
    if isinstance(looped, ast.Call) and isinstance(looped.func, ast.Attribute) and not looped.args:
        step = {"items": _items, "keys": _members, "values": _held}.get(looped.func.attr)
        if step is not None:
            return looped.func.value, (step,)
    return looped, (_members,)


def _at(place: int) -> Step:
    def taken(node: ast.expr) -> list[ast.expr] | None:
        known = isinstance(node, ast.Tuple | ast.List) and place < len(node.elts)
        return [node.elts[place]] if known else None  # type: ignore[attr-defined]

    return taken


def _members(node: ast.expr) -> list[ast.expr] | None:
    if isinstance(node, ast.Dict):
        return [key for key in node.keys if key is not None]
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else None


def _items(node: ast.expr) -> list[ast.expr] | None:
    if not isinstance(node, ast.Dict):
        return None
    pairs = zip(node.keys, node.values, strict=True)
    return [ast.Tuple([key, value], ast.Load()) for key, value in pairs if key is not None]


def _held(node: ast.expr) -> list[ast.expr] | None:
    return list(node.values) if isinstance(node, ast.Dict) else None
