"""Names that are undefined, or unbound on some path through a module."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable, Iterator

from ris_verified.audit.static.certain import ENDS
from ris_verified.audit.static.flow import Flow
from ris_verified.audit.static.index import Index
from ris_verified.audit.static.scope_reader import ScopeReader
from ris_verified.audit.static.scopes import COMPREHENSIONS, Scope, literal_all
from ris_verified.audit.static.syntax import Function, called_name
from ris_verified.audit.static.worlds import Finding

MODULE_NAMES = {"__file__", "__name__", "__path__", "__doc__", "__spec__", "__builtins__", "__class__", "__module__"}
MODULE_NAMES |= {"__annotations__", "__qualname__", "__package__", "__loader__", "__dict__", "__cached__"}
MODULE_NAMES |= {"WindowsError", "reveal_type", "reveal_locals", "get_ipython", "display", "_", "__firstlineno__"}
BUILTIN = MODULE_NAMES | set(dir(builtins))
Stars = Callable[[ast.ImportFrom], "set[str] | None"]


def unbound_names(
    tree: ast.Module,
    index: Index | None = None,
    stars: Stars = lambda node: None,
    exported: set[str] | None = None,
    ends: set[str] | None = None,
) -> list[Finding]:
    """Return line, name and what is wrong for every doubtful use of a name.

    Undefined: bound neither in the module, nor in an enclosing function, nor built in. Possibly
    unbound: a local that some path to its use does not assign. A loop may run no time and an
    exception may come before any statement of a `try` that can raise; a test that is met again
    has the answer that it had.

    Args:
        tree: the module.
        index: its nodes, where they are known.
        stars: names that a star import brings, None where they are unknown.
        exported: submodules, which `__all__` may name, and which an import of any of their names binds.
        ends: functions of other modules that never return.
    """
    index = index or Index(tree)
    try:
        reader = ScopeReader(tree, stars)
        below = exported or set()
        found = [] if reader.open else [*_undefined(reader.module, below), *_exports(tree, reader.module, below)]
        own = {function.name for function in index.functions}
        ends, filled = never_return([index]) | ((ends or set()) - own), _filled(tree)
        for scope in reader.module.all():
            watched = _watched(scope, reader)
            if watched:
                found += Flow(scope, index.below(scope.node), watched, ends, filled).run()
    except RecursionError:
        return [(1, "", "cannot be followed: the module is nested too deeply")]
    return sorted(set(found))


def _undefined(module: Scope, submodules: set[str]) -> Iterator[Finding]:
    for scope in module.all():
        for loads in (scope.loads, scope.lazy):
            for name, lines in loads.items():
                if name in module.bound | submodules or name in BUILTIN or scope.owner(name) is not None:
                    continue
                if scope is module and name in scope.bound:
                    continue
                hidden = any(name in s.typing_only for s in _chain(scope))
                if hidden and loads is scope.lazy:
                    continue
                fault = "is bound under TYPE_CHECKING only, and used at run time" if hidden else "is not defined"
                yield from ((line, name, fault) for line in sorted(set(lines)))


def _chain(scope: Scope) -> Iterator[Scope]:
    here: Scope | None = scope
    while here is not None:
        yield here
        here = here.parent


def _exports(tree: ast.Module, module: Scope, submodules: set[str]) -> Iterator[Finding]:
    if "__getattr__" in module.bound:
        return
    for line, name in literal_all(tree):
        if name not in module.bound | module.typing_only | submodules | MODULE_NAMES:
            yield line, name, "is named in __all__ and not defined"


def _watched(scope: Scope, reader: ScopeReader) -> set[str]:
    if isinstance(scope.node, (ast.Lambda, *COMPREHENSIONS)) or (scope is reader.module and reader.open):
        return set()
    names = scope.bound - scope.given - scope.globals - scope.nonlocals - scope.shared - BUILTIN
    if scope.is_class:
        names = {n for n in names if n not in reader.module.bound and not _outer(scope, n)}
    return names & (scope.early | _late(scope, names))


def _outer(scope: Scope, name: str) -> bool:
    return scope.parent is not None and scope.parent.owner(name) is not None


def _late(scope: Scope, names: set[str]) -> set[str]:
    # Names that a function in this scope reads, and that are bound after it or in a branch only.
    found: set[str] = set()
    for child in scope.children:
        if not isinstance(child.node, ast.ClassDef) or child.loads:
            found |= {
                n
                for inner in _same_call(child)
                for n in inner.loads
                if n in names and scope.definite.get(n, child.order) >= child.order
            }
    return found


def _same_call(scope: Scope) -> Iterator[Scope]:
    yield scope
    for child in scope.children:
        if isinstance(child.node, COMPREHENSIONS):
            yield from _same_call(child)


def never_return(indices: Iterable[Index]) -> set[str]:
    """Return the names of functions of which every definition raises or ends the process."""
    by_name: dict[str, list[bool]] = {}
    for index in indices:
        for function in index.functions:
            by_name.setdefault(function.name, []).append(_raises(function, index))
    return {name for name, all_raise in by_name.items() if all(all_raise)}


def _raises(function: Function, index: Index) -> bool:
    if function.returns is not None and called_name(function.returns) in ("NoReturn", "Never"):
        return True
    last = function.body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        ends = called_name(last.value.func) in ENDS
    elif isinstance(last, ast.Raise):
        error = last.exc.func if isinstance(last.exc, ast.Call) else last.exc
        ends = error is None or called_name(error) != "NotImplementedError"
    else:
        return False
    leaves = ast.Return | ast.Yield | ast.YieldFrom
    return ends and not any(isinstance(node, leaves) for node in index.below(function))


def _filled(tree: ast.Module) -> set[str]:
    # Constants of the module that hold a literal with something in it.
    found, seen = set(), set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            value = node.value
            full = isinstance(value, ast.Tuple | ast.List | ast.Set) and bool(value.elts)
            full |= isinstance(value, ast.Dict) and bool(value.keys)
            if full and name not in seen:
                found.add(name)
            elif name in found:
                found.discard(name)
            seen.add(name)
    return found
