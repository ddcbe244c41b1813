"""State of a module that functions change."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator

from ris_verified.audit.static.facts import MUTATORS
from ris_verified.audit.static.index import children
from ris_verified.audit.static.syntax import Function, SourceFile, arguments, called_name, root_name

Finding = tuple[int, str]
CONTAINERS = {"list", "dict", "set", "defaultdict", "OrderedDict", "Counter", "deque", "bytearray", "SimpleNamespace"}
CHANGES = MUTATORS | {"popitem", "reverse", "extendleft", "subtract", "move_to_end", "rotate"}


def decorators(files: Iterable[SourceFile]) -> set[str]:
    """Return the names of all decorators of a source."""
    return {
        called_name(decorator.func if isinstance(decorator, ast.Call) else decorator)
        for file in files
        for node in file.index.of(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        for decorator in node.decorator_list  # type: ignore[attr-defined]
    }


def written_globals(file: SourceFile, tree: ast.Module, known: Collection[str] = ()) -> Iterator[Finding]:
    """Yield line and message for every function that changes what belongs to its module.

    Args:
        file: the file.
        tree: its tree.
        known: names of decorators: one that keeps what it decorates, as a registry does, runs when it is imported.
    """
    for function in file.index.functions:
        yield from _remembered(function)
    shared = _containers(tree)
    if not (file.index.of(ast.Global) or "globals()" in file.text or _touched(file, shared)):
        return
    registering = {id(node) for function in file.index.functions for node in _registered(function, file, known)}
    for function in file.index.functions:
        if function.name == "__getattr__" and function in tree.body:
            continue  # a module that fetches its names when they are asked for may keep them
        body = [node for node in _own(function) if id(node) not in registering]
        declared = {n for node in body if isinstance(node, ast.Global) for n in node.names}
        written = list(_writes(body, declared, shared))
        local = _locals(function, body) - declared if written else set()
        seen: set[str] = set()
        for line, name, how in written:
            if name not in seen | local:
                seen.add(name)
                yield line, f"{function.name} writes the global {name!r} ({how})"


def _registered(function: Function, file: SourceFile, known: Collection[str]) -> Iterator[ast.AST]:
    """Yield the places where a decorator keeps what it was given and gives it back."""
    around = [f for f in file.index.functions if f is function or function in file.index.below(f)]
    if not any(f.name in known for f in around):
        return
    returned = {n.value.id for n in _own(function) if isinstance(n, ast.Return) and isinstance(n.value, ast.Name)}
    for node in _own(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in returned:
            yield from (target for target in node.targets if isinstance(target, ast.Subscript))
        elif isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id in returned for a in node.args):
            yield node


def _remembered(function: Function) -> Iterator[Finding]:
    """Yield changes of a default, which is one object for all calls."""
    args = function.args
    named = [*args.posonlyargs, *args.args]
    pairs = [
        *zip(reversed(named), reversed(args.defaults), strict=False),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]
    kept = {a.arg for a, value in pairs if _is_container(value)}
    if not kept:
        return
    body = list(_own(function))
    kept -= {node.id for node in body if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for line, name, how in _writes(body, set(), kept):
        yield line, f"{function.name} changes the default of {name!r}, which all its calls share ({how})"


def _is_container(value: ast.expr | None) -> bool:
    literal = isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
    return literal or (isinstance(value, ast.Call) and called_name(value.func) in CONTAINERS)


def _touched(file: SourceFile, shared: set[str]) -> bool:
    """Whether anything in a file could be a change of a shared name."""
    if not shared:
        return False
    stored = [n for n in file.index.of(ast.Subscript, ast.Attribute) if not isinstance(n.ctx, ast.Load)]  # type: ignore[attr-defined]
    called = [n.func for n in file.index.of(ast.Call) if isinstance(n.func, ast.Attribute) and n.func.attr in CHANGES]
    return any(root_name(node) in shared for node in (*stored, *called))


def _containers(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        made = called_name(value.func) if isinstance(value, ast.Call) else ""
        if _is_container(value) or made in classes:
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _own(function: Function) -> Iterator[ast.AST]:
    # Statements of this function only: inner functions are asked on their own.
    stack: list[ast.AST] = list(reversed(function.body))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            stack += reversed(children(node))


def _locals(function: Function, body: list[ast.AST]) -> set[str]:
    names = {argument.arg for argument in arguments(function.args)}
    for node in body:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def _writes(body: list[ast.AST], declared: set[str], shared: set[str]) -> Iterator[tuple[int, str, str]]:
    for node in body:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and node.id in declared:
            yield node.lineno, node.id, "declared global and assigned"
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
            names = [a.asname or a.name for a in node.names] if hasattr(node, "names") else [node.name]
            yield from ((node.lineno, name, "declared global and bound") for name in names if name in declared)
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            name = node.value.id if isinstance(node.value, ast.Name) else root_name(node) if _plain(node) else ""
            if name in shared | declared:
                yield node.lineno, name, "an item or attribute is assigned"
            elif _is_globals(node.value):
                yield node.lineno, "globals()", "an item is assigned"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in shared | declared:
                yield node.lineno, owner.id, f"{node.func.attr}()"


def _plain(node: ast.expr) -> bool:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _is_globals(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "globals"
